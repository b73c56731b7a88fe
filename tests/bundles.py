"""Small bundles of each family, of trivial OpenVINO graphs: they run at once and need no torch.

The components have the names, the shapes and the dynamic dimensions of a converted model's; what
they compute is a few lines of arithmetic in which every input has a say, so that another prompt,
seed or size gives another picture.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from vinograph import __version__
from vinograph.families.registry import family
from vinograph.models.bundle import Bundle
from vinograph.models.bundle_writer import BundleWriter
from vinograph.models.manifest import MANIFEST_FILE, Component, Manifest, Source, Tensor, TokenizerFile
from vinograph.schedulers import read_scheduler_config

WIDTH = 8  # width of the text's hidden states, and of keys and values
VOCABULARY = 300
TOKENS = 20
LEVELS = (1, 2, 3)
LAYERS = 3  # layers of an SDXL text encoder

_SENTENCES = (
    "a red house on a snowy hill at night",
    "two blue boats on the sea under a stormy sky",
    "a yellow cat to the left of a lighthouse, in a green meadow",
    "three trees in the desert at sunset with small clouds and a white moon",
)

Node = Any
Graph = Callable[[Mapping[str, Node]], Mapping[str, Node]]


@dataclass(frozen=True)
class Part:
    """A component: the shapes and types of inputs and outputs, and the graph in between."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    compute: Graph
    f16_safe: bool = True


def save_bundle(
    target: Path,
    *,
    broken: str | None = None,
    image_encoder: bool = True,
    name: str = "tiny",
    graphs: Mapping[str, Graph] | None = None,
) -> Bundle:
    """Write the bundle to ``target``. The component ``broken`` computes NaN.

    ``graphs`` are what components compute in place of what is trivial.
    """
    parts = {each: part for each, part in _components().items() if each != "image_encoder" or image_encoder}
    parts |= {each: dataclasses.replace(parts[each], compute=compute) for each, compute in (graphs or {}).items()}
    with BundleWriter(target, fingerprint=f"{broken} {image_encoder}") as writer:
        components = _write_components(writer.partial, parts, broken)
        tokenizers = {each: _write_tokenizer(writer.partial, each) for each in ("prior_tokenizer", "tokenizer")}
        return writer.finish(_manifest(name, components, tokenizers))


def save_sdxl_bundle(
    target: Path,
    *,
    broken: str | None = None,
    without: Sequence[str] = (),
    name: str = "tiny-sdxl",
    scheduler: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    graphs: Mapping[str, Graph] | None = None,
    **config: Any,
) -> Bundle:
    """Write an SDXL bundle to ``target``, without some components, and with changed ``config``.

    ``graphs`` are what components compute in place of what is trivial.
    """
    parts = {each: part for each, part in _sdxl_parts(config).items() if each not in without}
    parts |= {name: dataclasses.replace(parts[name], compute=compute) for name, compute in (graphs or {}).items()}
    with BundleWriter(target, fingerprint=str(broken)) as writer:
        components = _write_components(writer.partial, parts, broken)
        tokenizers = {each: _write_tokenizer(writer.partial, each) for each in ("tokenizer", "tokenizer_2")}
        manifest = _sdxl_manifest(name, components, tokenizers)
        manifest = dataclasses.replace(
            manifest,
            config={**manifest.config, **config},
            scheduler=manifest.scheduler if scheduler is None else read_scheduler_config(scheduler),
            defaults={**manifest.defaults, "generate": {**manifest.defaults["generate"], **(defaults or {})}},
        )
        return writer.finish(manifest)


def save_pixart_bundle(
    target: Path,
    *,
    broken: str | None = None,
    without: Sequence[str] = (),
    name: str = "tiny-pixart",
    scheduler: Mapping[str, Any] | None = None,
    graphs: Mapping[str, Graph] | None = None,
    **config: Any,
) -> Bundle:
    """Write a PixArt bundle to ``target``, without some components, and with changed ``config``.

    ``graphs`` are what components compute in place of what is trivial.
    """
    numbers = {**_PIXART_CONFIG, **config}
    native = 8 * numbers["sample_size"]
    parts = {each: part for each, part in _pixart_parts(numbers).items() if each not in without}
    parts |= {name: dataclasses.replace(parts[name], compute=compute) for name, compute in (graphs or {}).items()}
    defaults = family("pixart").defaults()
    defaults["generate"] |= {"height": native, "width": native, "num_inference_steps": 4, "max_sequence_length": TOKENS}
    with BundleWriter(target, fingerprint=str(broken)) as writer:
        manifest = Manifest(
            family="pixart",
            name=name,
            components=_write_components(writer.partial, parts, broken),
            tokenizers={"tokenizer": _write_tokenizer(writer.partial, "tokenizer")},
            scheduler=read_scheduler_config(scheduler or {"_class_name": "DPMSolverMultistepScheduler"}),
            config=numbers,
            defaults=defaults,
            limits={"size_multiple": 16, "minimum_size": 64, "maximum_size": 2 * native, "native_size": native},
            source=Source("tests/tiny-pixart", None, "Apache-2.0"),
            tools={"vinograph": __version__, "openvino": ov.__version__, "python": platform.python_version()},
            files={},
        )
        return writer.finish(manifest)


def _write_components(folder: Path, parts: Mapping[str, Part], broken: str | None) -> dict[str, Component]:
    components = {}
    for name, part in parts.items():
        ov.save_model(_model(part, broken=name == broken), folder / f"{name}.xml", compress_to_fp16=False)
        components[name] = Component(f"{name}.xml", part.inputs, part.outputs, "f32", part.f16_safe)
    return components


def _sdxl_manifest(name: str, components: dict[str, Component], tokenizers: dict[str, TokenizerFile]) -> Manifest:
    defaults = family("sdxl").defaults()
    defaults["generate"] |= {"height": 64, "width": 64, "num_inference_steps": 4}
    return Manifest(
        family="sdxl",
        name=name,
        components=components,
        tokenizers=tokenizers,
        scheduler=read_scheduler_config({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}),
        config={
            "latent_channels": 4,
            "vae_scale_factor": 8,
            "vae_scaling_factor": 0.13025,
            "vae_latents_mean": [],
            "vae_latents_std": [],
            "tiny_vae_scaling_factor": 1.0,
            "text_widths": [WIDTH, WIDTH],
            "pooled_width": WIDTH,
            "force_zeros_for_empty_prompt": 1,
            "time_cond_width": 0,
        },
        defaults=defaults,
        limits={"size_multiple": 8, "minimum_size": 64, "maximum_size": 512, "native_size": 64},
        source=Source("tests/tiny-sdxl", None, "Apache-2.0"),
        tools={"vinograph": __version__, "openvino": ov.__version__, "python": platform.python_version()},
        files={},
    )


def _sdxl_parts(config: Mapping[str, Any]) -> dict[str, Part]:
    ids, hidden = {"input_ids": Tensor(("b", "n"), "i64")}, {"hidden_states": _f32("b", LAYERS, "n", WIDTH)}
    latents, pixels, parameters = _f32("b", 4, "h", "w"), _f32("b", 3, "8h", "8w"), _f32("b", 8, "h", "w")
    inputs = {
        "sample": latents,
        "timestep": _f32("b"),
        "encoder_hidden_states": _f32("b", "n", 2 * WIDTH),
        "text_embeds": _f32("b", WIDTH),
        "time_ids": _f32("b", 6),
    }
    if width := config.get("time_cond_width"):
        inputs["timestep_cond"] = _f32("b", width)
    pooled = {**hidden, "text_embeds": _f32("b", WIDTH)}
    return {
        "text_encoder": Part(ids, hidden, partial(_encode_layers, seed=2)),
        "text_encoder_2": Part(ids, pooled, partial(_encode_layers, seed=3, pooled=True)),
        "unet": Part(inputs, {"out_sample": latents}, _predict_sdxl),
        "vae_decoder": Part(
            {"latent_sample": latents}, {"sample": pixels}, partial(_to_wide_pixels, scale=0.05), False
        ),
        "vae_encoder": Part(
            {"sample": pixels}, {"latent_parameters": parameters}, partial(_to_latents, channels=8), False
        ),
        "tiny_vae_decoder": Part({"latent_sample": latents}, {"sample": pixels}, partial(_to_wide_pixels, scale=0.5)),
        "tiny_vae_encoder": Part({"sample": pixels}, {"latents": latents}, partial(_to_latents, channels=4)),
    }


_PIXART_CONFIG: Mapping[str, Any] = {
    "latent_channels": 4,
    "vae_scale_factor": 8,
    "vae_scaling_factor": 0.18215,
    "vae_latents_mean": [],
    "vae_latents_std": [],
    "tiny_vae_scaling_factor": 1.0,
    "text_width": WIDTH,
    "text_length": TOKENS,
    "out_channels": 8,
    "sample_size": 32,
    "size_conditions": 0,
}


def _pixart_parts(config: Mapping[str, Any]) -> dict[str, Part]:
    ids = {name: Tensor(("b", "n"), "i64") for name in ("input_ids", "attention_mask")}
    inputs = {
        "sample": _f32("b", 4, "h", "w"),
        "timestep": _f32("b"),
        "encoder_hidden_states": _f32("b", "n", WIDTH),
        "encoder_attention_mask": Tensor(("b", "n"), "i64"),
    }
    if config["size_conditions"]:
        inputs |= {"resolution": _f32("b", 2), "aspect_ratio": _f32("b", 1)}
    predicted = {"out_sample": _f32("b", config["out_channels"], "h", "w")}
    vaes = {name: part for name, part in _sdxl_parts({}).items() if "vae" in name}
    return {
        "text_encoder": Part(ids, {"hidden_states": _f32("b", "n", WIDTH)}, _encode_text),
        "transformer": Part(inputs, predicted, partial(_predict_pixart, channels=config["out_channels"])),
        **vaes,
    }


def _predict_pixart(given: Mapping[str, Node], *, channels: int) -> dict[str, Node]:
    """Noise from all inputs, padding tokens excluded, and a learned variance of absurd size."""
    inputs = {"x" if name == "sample" else name: value for name, value in given.items()}
    mask = ops.unsqueeze(ops.convert(inputs.pop("encoder_attention_mask"), "f32"), ops.constant(2))
    words = ops.multiply(inputs["encoder_hidden_states"], mask)
    inputs["encoder_hidden_states"] = ops.reduce_sum(words, ops.constant(np.array([1])))
    noise = _predict(inputs)["noise"]
    if channels == 4:
        return {"out_sample": noise}
    return {"out_sample": ops.concat([noise, ops.multiply(noise, ops.constant(np.float32(100)))], 1)}


def _encode_layers(given: Mapping[str, Node], *, seed: int, pooled: bool = False) -> dict[str, Node]:
    """Hidden states of each layer: the token embeddings times the layer's number."""
    table = np.random.default_rng(seed).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    words = ops.gather(ops.constant(table), given["input_ids"], ops.constant(0))
    number = np.arange(1, LAYERS + 1, dtype=np.float32).reshape(1, LAYERS, 1, 1)
    states = {"hidden_states": ops.multiply(ops.unsqueeze(words, ops.constant(1)), ops.constant(number))}
    return {**states, "text_embeds": ops.reduce_mean(words, ops.constant(np.array([1])))} if pooled else states


def _predict_sdxl(given: Mapping[str, Node]) -> dict[str, Node]:
    renamed = {"x" if name == "sample" else name: value for name, value in given.items()}
    return {"out_sample": _predict(renamed)["noise"]}


def _to_wide_pixels(given: Mapping[str, Node], *, scale: float) -> dict[str, Node]:
    """Pictures in which each latent is an 8×8 square, its first channels the colour in [-1, 1]."""
    spread = np.zeros((4, 3, 8, 8), np.float32)
    spread[range(3), range(3)] = scale
    wide = ops.convolution_backprop_data(given["latent_sample"], ops.constant(spread), strides=[8, 8])
    return {"sample": ops.tanh(wide)}


def _to_latents(given: Mapping[str, Node], *, channels: int) -> dict[str, Node]:
    """Latents: the mean colour of each 8×8 square; with 8 channels, a tiny variance, too."""
    kernel = np.zeros((channels, 3, 8, 8), np.float32)
    kernel[range(3), range(3)] = 1 / 64
    kernel[4:, 0] = -2 / 64
    pooled = ops.convolution(given["sample"], ops.constant(kernel), [8, 8], [0, 0], [0, 0], [1, 1])
    return {"latent_parameters" if channels == 8 else "latents": pooled}


def _manifest(name: str, components: dict[str, Component], tokenizers: dict[str, TokenizerFile]) -> Manifest:
    defaults = family("wuerstchen").defaults()
    defaults["generate"] |= {"height": 128, "width": 128, "prior_num_inference_steps": 4, "num_inference_steps": 3}
    return Manifest(
        family="wuerstchen",
        name=name,
        components=components,
        tokenizers=tokenizers,
        scheduler={stage: {"scaler": 1.0, "s": 0.008} for stage in ("prior", "decoder")},
        config={
            "prior_channels": 16,
            "latent_channels": 4,
            "resolution_multiple": 42.67,
            "latent_dim_scale": 10.67,
            "latent_mean": 42.0,
            "latent_std": 1.0,
            "scale_factor": 0.3764,
            "decoder_patch_size": 2,
            "effnet_levels": list(LEVELS),
            "decoder_level_count": 4,
            "prior_text_width": WIDTH,
            "decoder_text_width": WIDTH,
            "prior_attention": 1,
            "decoder_attention_widths": [WIDTH],
        },
        defaults=defaults,
        limits={"size_multiple": 128, "minimum_size": 128, "maximum_size": 2048, "native_size": 256},
        source=Source("tests/tiny", None, "Apache-2.0"),
        tools={"vinograph": __version__, "openvino": ov.__version__, "python": platform.python_version()},
        files={},
    )


def _components() -> dict[str, Part]:
    ids = {name: Tensor(("b", "n"), "i64") for name in ("input_ids", "attention_mask")}
    hidden = {"hidden_states": _f32("b", "n", WIDTH)}
    stacked = {name: _f32("b", 1, "n", WIDTH) for name in ("keys", "values")}
    plain = {f"{name}_0": _f32("b", "n", WIDTH) for name in ("keys", "values")}
    effnet = {f"effnet_{level}": _f32("b", 16, f"h{level}", f"w{level}") for level in LEVELS}
    embeddings, latents = _f32("b", 16, "h", "w"), _f32("b", 4, "H", "W")
    return {
        "prior_text_encoder": Part(ids, hidden, _encode_text),
        "prior_text": Part(hidden, stacked, _stacked_keys_and_values),
        "prior": Part({"x": embeddings, "r": _f32("b"), **stacked}, {"noise": embeddings}, _predict),
        "text_encoder": Part(ids, hidden, _encode_text),
        "decoder_text": Part(hidden, plain, _plain_keys_and_values),
        "decoder": Part({"x": latents, "r": _f32("b"), **effnet, **plain}, {"noise": latents}, _predict, False),
        "vqgan": Part({"latents": latents}, {"image": _f32("b", 3, "4H", "4W")}, _to_pixels),
        "image_encoder": Part({"image": _f32("b", 3, "32h", "32w")}, {"embeddings": embeddings}, _encode_picture),
    }


def _f32(*shape: int | str) -> Tensor:
    return Tensor(shape, "f32")


def _encode_text(given: Mapping[str, Node]) -> dict[str, Node]:
    table = np.random.default_rng(0).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    words = ops.gather(ops.constant(table), given["input_ids"], ops.constant(0))
    mask = ops.unsqueeze(ops.convert(given["attention_mask"], "f32"), ops.constant(2))
    return {"hidden_states": ops.multiply(words, mask)}


def _stacked_keys_and_values(given: Mapping[str, Node]) -> dict[str, Node]:
    stacked = ops.unsqueeze(given["hidden_states"], ops.constant(1))
    return {"keys": stacked, "values": ops.multiply(stacked, ops.constant(np.float32(0.5)))}


def _plain_keys_and_values(given: Mapping[str, Node]) -> dict[str, Node]:
    hidden = given["hidden_states"]
    return {"keys_0": ops.tanh(hidden), "values_0": ops.multiply(hidden, ops.constant(np.float32(0.5)))}


def _predict(given: Mapping[str, Node]) -> dict[str, Node]:
    """Noise: a tenth of x, shifted per row by the mean of every other input."""
    noise = ops.multiply(given["x"], ops.constant(np.float32(0.1)))
    for name, value in given.items():
        if name != "x":
            noise = ops.add(noise, ops.multiply(ops.tanh(_mean_of_rows(value)), ops.constant(np.float32(0.2))))
    return {"noise": noise}


def _mean_of_rows(value: Node) -> Node:
    flat = ops.reshape(value, ops.constant(np.array([0, -1, 1, 1])), special_zero=True)
    return ops.reduce_mean(flat, ops.constant(np.array([1])), keep_dims=True)


def _to_pixels(given: Mapping[str, Node]) -> dict[str, Node]:
    """Pictures in which each latent is a 4×4 square, its first three channels the colour."""
    spread = np.zeros((4, 3, 4, 4), np.float32)
    spread[range(3), range(3)] = 1
    wide = ops.convolution_backprop_data(given["latents"], ops.constant(spread), strides=[4, 4])
    return {"image": ops.sigmoid(wide)}


def _encode_picture(given: Mapping[str, Node]) -> dict[str, Node]:
    kernel = np.random.default_rng(1).standard_normal((16, 3, 32, 32)).astype(np.float32) / 32
    pooled = ops.convolution(given["image"], ops.constant(kernel), [32, 32], [0, 0], [0, 0], [1, 1])
    return {"embeddings": ops.tanh(pooled)}


def _model(part: Part, *, broken: bool) -> ov.Model:
    parameters = {name: _parameter(name, tensor) for name, tensor in part.inputs.items()}
    outputs = dict(part.compute(parameters))
    for name, node in outputs.items():
        if broken:
            node = ops.log(ops.subtract(ops.negative(ops.abs(node)), ops.constant(np.float32(1))))
        node.output(0).get_tensor().set_names({name})
        outputs[name] = node
    results = [ops.result(node) for node in outputs.values()]
    return ov.Model(results, list(parameters.values()), "tiny")


def _parameter(name: str, tensor: Tensor) -> Node:
    shape = ov.PartialShape([-1 if isinstance(size, str) else size for size in tensor.shape])
    parameter = ops.parameter(shape, {"f32": ov.Type.f32, "i64": ov.Type.i64}[tensor.dtype])
    parameter.set_friendly_name(name)
    parameter.output(0).get_tensor().set_names({name})
    return parameter


def _write_tokenizer(folder: Path, name: str) -> TokenizerFile:
    tokenizer = train_tokenizer(_SENTENCES)
    tokenizer.save(str(folder / f"{name}.json"))
    return TokenizerFile(f"{name}.json", TOKENS, tokenizer.token_to_id("<|endoftext|>") or 0)


def train_tokenizer(sentences: Sequence[str]) -> Tokenizer:
    """A CLIP tokenizer: lower case, byte pairs, and a token at the start and at the end."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[(each, tokenizer.token_to_id(each)) for each in special],
    )
    return tokenizer


def comparable(bundle: Path) -> dict[str, bytes | str]:
    """Every file's bytes, with the manifest's measured timings left out."""
    found: dict[str, bytes | str] = {
        each.relative_to(bundle).as_posix(): each.read_bytes() for each in bundle.rglob("*") if each.is_file()
    }
    manifest = Bundle.open(bundle).manifest
    if manifest.quantization is not None:
        speed = dataclasses.replace(manifest.quantization.speed, denoisers={})
        quantization = dataclasses.replace(manifest.quantization, speed=speed)
        found["bundle.json"] = dataclasses.replace(manifest, quantization=quantization).to_json()
    return found


def low_bit_linear(x: Node, seed: int = 0, side: int = 64) -> Node:
    """A linear layer whose weights are stored in int8."""
    rng = np.random.default_rng(seed)
    stored = ops.constant(rng.integers(-127, 128, (side, side), np.int8))
    scale = ops.constant((rng.random((side, 1)) / 1000).astype(np.float32))
    weights = ops.multiply(ops.convert(stored, "f32"), scale)
    return ops.matmul(x, weights, transpose_a=False, transpose_b=True)


def save_low_bit_bundle(path: Path) -> Bundle:
    """An SDXL bundle whose UNet has weights in int8, as its manifest says."""

    def denoise(given: Any) -> dict[str, Node]:
        x = given["sample"]
        flat = ops.reshape(x, ops.constant([0, 4, 16, 4]), special_zero=True)
        mixed = ops.reshape(low_bit_linear(flat, side=4), ops.shape_of(x), special_zero=False)
        conditioning = [each for name, each in given.items() if name != "sample"]
        for each in conditioning:
            rows = ops.reshape(each, ops.constant([0, -1, 1, 1]), special_zero=True)
            mean = ops.reduce_mean(rows, ops.constant([1]), keep_dims=True)
            mixed = ops.add(mixed, ops.multiply(ops.tanh(mean), ops.constant(np.float32(0.1))))
        return {"out_sample": mixed}

    bundle = save_sdxl_bundle(path, graphs={"unet": denoise})
    components = dict(bundle.manifest.components)
    components["unet"] = dataclasses.replace(components["unet"], weights="int8")
    manifest = dataclasses.replace(bundle.manifest, components=components)
    (bundle.path / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.open(bundle.path)
