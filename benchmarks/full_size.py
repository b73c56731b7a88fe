"""Writes a checkpoint of a published size with random weights, to measure without a download.

    python -m benchmarks.full_size wuerstchen DIRECTORY [--layout combined|split] [--image-encoder]
    python -m benchmarks.full_size sdxl DIRECTORY
    python -m benchmarks.full_size sdxl-file FILE.safetensors
    python -m benchmarks.full_size pixart DIRECTORY [--consistency]

The layout, the configurations, and the names, shapes and type (f16) of the tensors are the
published ones: 6.2 GB for Würstchen; 6.9 GB for SDXL-Turbo, with its tiny VAE in the folder
tiny_vae; 6.9 GB for SDXL's base as a single file in its authors' layout; 10.9 GB for PixArt-α's
model of 1024 pixels or its consistency model, with a sharded text encoder of 4.76 billion
parameters. Weights are scaled so that activations stay finite: pictures are noise, but not NaN.
Tensors are written one at a time, in less than 1 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import WuerstchenDiffNeXt
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from numpy.typing import NDArray
from torch import nn

from benchmarks import single_file_layout as layout
from benchmarks.published_configs import (
    CLIP_BIGG,
    CLIP_H,
    CLIP_L,
    DECODER,
    PIXART,
    PIXART_SCHEDULE,
    PRIOR,
    T5_XXL,
    TURBO_SCHEDULER,
    UNET,
    VAE,
    VQGAN,
)
from training.wuerstchen.modules import ImageEncoder

# Neither library's classes are typed.
DIFFUSERS: Any = diffusers
TRANSFORMERS: Any = transformers

PRIOR_ID = "warp-ai/wuerstchen-prior"
SHARD = 4_000_000_000

# Outputs that are divisors or must lie in [0, 1]: a factor of the weights' deviation, the bias's
# mean.
_OUTPUTS: Mapping[str, tuple[float, float]] = {
    "out.1": (0.05, 0.0),
    "clf.1": (0.1, 3.0),
    "out_block.0": (0.15, 0.5),
    "decoder.conv_out": (0.2, 0.0),
}
# Tensors of older text encoders whose names lack the usual prefix.
_UNPREFIXED = ("text_projection.",)
# A second name of another tensor, which files don't have.
_TIED = "encoder.embed_tokens.weight"

_WUERSTCHEN = {
    "WuerstchenPrior": WuerstchenPrior,
    "WuerstchenDiffNeXt": WuerstchenDiffNeXt,
    "PaellaVQModel": PaellaVQModel,
}
_TEXT_CONFIGS = {
    "CLIPTextModel": TRANSFORMERS.CLIPTextConfig,
    "CLIPTextModelWithProjection": TRANSFORMERS.CLIPTextConfig,
    "T5EncoderModel": TRANSFORMERS.T5Config,
}


def network(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """A network of diffusers, transformers or our own by its class's name, on the meta device."""
    with torch.device("meta"):
        if kind == "ImageEncoder":
            return ImageEncoder.from_config(config)
        if kind in _TEXT_CONFIGS:
            module: nn.Module = getattr(TRANSFORMERS, kind)(_TEXT_CONFIGS[kind](**config))
        else:
            module = (_WUERSTCHEN.get(kind) or getattr(DIFFUSERS, kind))(**config)
        return module


def write_model(folder: Path, file: str, config: Mapping[str, Any], kind: str, prefix: str = "") -> int:
    """Write config.json and random f16 weights in one file; returns the number of parameters."""
    return _write(folder, file, {"_class_name": kind, **config}, _shapes(kind, config, prefix), prefix)


def write_shards(folder: Path, file: str, config: Mapping[str, Any], kind: str, max_bytes: int = SHARD) -> int:
    """Write config.json, random f16 weights in shards, and their index.

    A shard has at most ``max_bytes``, or a single tensor. Shards are named as transformers names
    those of ``file``. Returns the number of parameters.
    """
    shards: list[dict[str, torch.Tensor]] = [{}]
    room = max_bytes
    for name, tensor in _shapes(kind, config, "").items():
        room -= _size(tensor)
        if room < 0 and shards[-1]:
            shards.append({})
            room = max_bytes - _size(tensor)
        shards[-1][name] = tensor
    stem, config = file.removesuffix(".safetensors"), {"architectures": [kind], **config}
    names = [f"{stem}-{index + 1:05}-of-{len(shards):05}.safetensors" for index in range(len(shards))]
    count = sum(_write(folder, name, config, shard, "") for name, shard in zip(names, shards, strict=True))
    total = sum(_size(tensor) for shard in shards for tensor in shard.values())
    weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{file}.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return count


def _shapes(kind: str, config: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The model's tensors without values, by their names in files."""
    tensors = network(kind, config).state_dict()
    tensors.pop(_TIED, None)
    plain = (prefix, *_UNPREFIXED)
    return {name if name.startswith(plain) else prefix + name: each for name, each in tensors.items()}


def _size(tensor: torch.Tensor) -> int:
    """The tensor's size in a file, in bytes."""
    return int(tensor.numel()) * (2 if tensor.is_floating_point() else 8)


def _write(folder: Path, file: str, config: Mapping[str, Any], shapes: Mapping[str, torch.Tensor], prefix: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor in shapes.items():
        dtype, end = "F16" if tensor.is_floating_point() else "I64", position + _size(tensor)
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    _write_tensors(folder / file, header, {name.removeprefix(prefix): each for name, each in shapes.items()})
    count = sum(int(tensor.numel()) for tensor in shapes.values())
    print(f"{folder.name}: {count / 1e6:.0f} M parameters", flush=True)
    return count


def _write_tensors(file: Path, header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file of random values, one tensor after the other."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng([len(tensors), zlib.crc32(f"{file.parent.name}/{file.name}".encode())])
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            for values in _values(name, tensor, rng):
                stream.write(values.tobytes())


def _values(name: str, tensor: torch.Tensor, rng: np.random.Generator) -> Iterator[NDArray[Any]]:
    """Random values of one tensor in chunks, scaled as an initialised network's.

    Weights are scaled by fan-in; norms and variances are about one, all else about zero.
    """
    if not tensor.is_floating_point():
        yield np.zeros(tensor.numel(), np.int64)
        return
    vector = tensor.dim() < 2 or tensor.shape[:3] == (1, 1, 1)
    mean, spread = 0.0, 0.1 if vector else 1 / math.sqrt(tensor[0].numel())
    if vector and ("norm" in name or "running_var" in name or name.endswith(".1.weight")) and "bias" not in name:
        mean = 1.0
    if ("embedding" in name or name == "shared.weight") and not vector:
        spread = 0.02
    layer = name.rpartition(".")[0]
    if layer.endswith("SelfAttention.q"):  # T5's weights include the scale of attention's scores
        spread /= 8
    if layer in _OUTPUTS:
        scale, shift = _OUTPUTS[layer]
        spread, mean = spread * scale, shift if vector else 0.0
    remaining = tensor.numel()
    while remaining:
        count = min(remaining, 1 << 24)
        remaining -= count
        yield (mean + spread * rng.standard_normal(count, np.float32)).astype(np.float16)


def write_tokenizer(folder: Path, pad: str = "<|endoftext|>") -> None:
    """Write a CLIP tokenizer without merges: every letter is a token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    CLIPTokenizer(vocabulary, [], model_max_length=77, pad_token=pad).save_pretrained(folder)


def write_t5_tokenizer(folder: Path) -> None:
    """Write a T5 tokenizer without words: every letter is a token."""
    from transformers import T5Tokenizer

    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -4.0) for letter in letters)]
    pieces += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(100))]
    T5Tokenizer(pieces, model_max_length=512).save_pretrained(folder)


def write_scheduler(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a scheduler's configuration."""
    folder.mkdir(parents=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_index(directory: Path, pipeline: str, parts: Mapping[str, tuple[str, str]], card: str) -> None:
    """Write model_index.json, the model card and the licence."""
    index = {"_class_name": pipeline, **{part: list(kind) for part, kind in parts.items()}}
    (directory / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    (directory / "README.md").write_text(f"---\nlicense: mit\n{card}---\n\nRandom weights.\n", encoding="utf-8")
    (directory / "LICENSE").write_text("Random numbers; use them as you like.\n", encoding="utf-8")


def wuerstchen(directory: Path, layout: str, image_encoder: bool) -> None:
    """Write Würstchen v2, combined or with decoder and prior in folders of their own."""
    combined = layout == "combined"
    home = directory if combined else directory / "wuerstchen"
    prior_home = directory if combined else directory / "wuerstchen-prior"
    prefix = "prior_" if combined else ""
    model, weights = "model.safetensors", "diffusion_pytorch_model.safetensors"

    count = write_model(prior_home / f"{prefix}prior", weights, PRIOR, "WuerstchenPrior")
    count += write_model(prior_home / f"{prefix}text_encoder", model, CLIP_BIGG, "CLIPTextModel", "text_model.")
    count += write_model(home / "decoder", weights, DECODER, "WuerstchenDiffNeXt")
    count += write_model(home / "text_encoder", model, CLIP_H, "CLIPTextModel", "text_model.")
    count += write_model(home / "vqgan", weights, VQGAN, "PaellaVQModel")
    if image_encoder:
        count += write_model(home / "image_encoder", model, {}, "ImageEncoder")
    for folder in (prior_home / f"{prefix}tokenizer", home / "tokenizer"):
        write_tokenizer(folder)
    for folder in (prior_home / f"{prefix}scheduler", home / "scheduler"):
        write_scheduler(folder, {"_class_name": "DDPMWuerstchenScheduler", "s": 0.008, "scaler": 1.0})

    text = {"text_encoder": ("transformers", "CLIPTextModel"), "tokenizer": ("transformers", "CLIPTokenizer")}
    sampled = {**text, "scheduler": ("diffusers", "DDPMWuerstchenScheduler")}
    decoder = {"decoder": ("wuerstchen", "WuerstchenDiffNeXt"), "vqgan": ("wuerstchen", "PaellaVQModel"), **sampled}
    prior = {"prior": ("wuerstchen", "WuerstchenPrior"), **sampled}
    if combined:
        both = {**decoder, **{f"prior_{part}": kind for part, kind in prior.items()}}
        write_index(home, "WuerstchenCombinedPipeline", both, "")
    else:
        write_index(home, "WuerstchenDecoderPipeline", decoder, f"prior:\n- {PRIOR_ID}\n")
        write_index(prior_home, "WuerstchenPriorPipeline", prior, "")
    print(f"{count / 1e6:.0f} M parameters in {directory}")


def sdxl(directory: Path) -> None:
    """Write SDXL-Turbo: the files of its fp16 variant, and its tiny VAE."""
    model, weights = "model.fp16.safetensors", "diffusion_pytorch_model.fp16.safetensors"
    second = {**CLIP_BIGG, "projection_dim": 1280, "eos_token_id": 2}
    count = write_model(directory / "unet", weights, UNET, "UNet2DConditionModel")
    count += write_model(directory / "text_encoder", model, CLIP_L, "CLIPTextModel", "text_model.")
    count += write_model(directory / "text_encoder_2", model, second, "CLIPTextModelWithProjection", "text_model.")
    count += write_model(directory / "vae", weights, VAE, "AutoencoderKL")
    count += write_model(directory / "tiny_vae", weights, {}, "AutoencoderTiny")
    write_tokenizer(directory / "tokenizer")
    write_tokenizer(directory / "tokenizer_2", pad="!")
    write_scheduler(directory / "scheduler", TURBO_SCHEDULER)
    parts = {
        "text_encoder": ("transformers", "CLIPTextModel"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "CLIPTokenizer"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", "EulerAncestralDiscreteScheduler"),
    }
    write_index(directory, "StableDiffusionXLPipeline", parts, "")
    print(f"{count / 1e6:.0f} M parameters in {directory}")


def sdxl_file(file: Path) -> None:
    """Write SDXL's base as a single file in its authors' layout."""
    second = {**CLIP_BIGG, "projection_dim": 1280, "eos_token_id": 2}
    unet = network("UNet2DConditionModel", {**UNET, "sample_size": 128})
    vae = network("AutoencoderKL", VAE).state_dict()
    tensors = {
        **{layout.UNET + name: each for name, each in layout.ldm_unet(unet).items()},
        **{layout.TEXT_1 + name: each for name, each in _shapes("CLIPTextModel", CLIP_L, "text_model.").items()},
        **{
            layout.TEXT_2 + name: each
            for name, each in layout.open_clip(_shapes("CLIPTextModelWithProjection", second, "text_model.")).items()
        },
        **{layout.VAE + name: each for name, each in layout.ldm_vae(vae).items()},
    }
    header: dict[str, Any] = {}
    position = 0
    for name, tensor in tensors.items():
        end = position + _size(tensor)
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_tensors(file, header, tensors)
    print(f"{position / 2e6:.0f} M parameters in {file}")


def pixart(directory: Path, consistency: bool) -> None:
    """Write PixArt-XL-2-1024-MS or PixArt-LCM-XL-2-1024-MS, and a tiny VAE.

    The two differ only in the scheduler.
    """
    model, weights = "model.safetensors", "diffusion_pytorch_model.safetensors"
    vae = {**VAE, "scaling_factor": 0.18215}
    scheduler = "LCMScheduler" if consistency else "DPMSolverMultistepScheduler"
    count = write_shards(directory / "text_encoder", model, T5_XXL, "T5EncoderModel")
    count += write_model(
        directory / "transformer",
        weights,
        PIXART,
        "PixArtTransformer2DModel",
    )
    count += write_model(directory / "vae", weights, vae, "AutoencoderKL")
    count += write_model(directory / "tiny_vae", weights, {}, "AutoencoderTiny")
    write_t5_tokenizer(directory / "tokenizer")
    write_scheduler(directory / "scheduler", {"_class_name": scheduler, **PIXART_SCHEDULE})
    parts = {
        "text_encoder": ("transformers", "T5EncoderModel"),
        "tokenizer": ("transformers", "T5Tokenizer"),
        "transformer": ("diffusers", "PixArtTransformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", scheduler),
    }
    write_index(directory, "PixArtAlphaPipeline", parts, "")
    print(f"{count / 1e6:.0f} M parameters in {directory}")


def main() -> None:
    """Write the checkpoint that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=["wuerstchen", "sdxl", "sdxl-file", "pixart"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layout", choices=["combined", "split"], default="combined", help="Würstchen's")
    parser.add_argument("--image-encoder", action="store_true", help="Würstchen's")
    parser.add_argument("--consistency", action="store_true", help="PixArt's: the consistency model's scheduler")
    arguments = parser.parse_args()
    if arguments.directory.exists():
        parser.error(f"{arguments.directory} exists")
    if arguments.family == "sdxl":
        sdxl(arguments.directory)
    elif arguments.family == "sdxl-file":
        sdxl_file(arguments.directory)
    elif arguments.family == "pixart":
        pixart(arguments.directory, arguments.consistency)
    else:
        wuerstchen(arguments.directory, arguments.layout, arguments.image_encoder)


if __name__ == "__main__":
    main()
