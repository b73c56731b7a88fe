"""Directories as optimum-intel 2.2 exports SDXL, made without it: the same files, ports and types.

Compared with a real export (`optimum-cli export openvino --task text-to-image`): its graphs come
from tracing diffusers' models, as these do; every hidden state of a text encoder is an output;
times are whole numbers, of which there is one; the text has 77 tokens; weights in int8 are
unsigned, with a zero point and a scale for each row.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as opset
from openvino._offline_transformations import apply_moc_transformations
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import nn

from tests.checkpoints import SavedSdxl, SdxlShape
from vinograph.models.manifest import Tensor

XML = "openvino_model.xml"
Ports = Mapping[str, Tensor]
_SIZES = {"b": 1, "n": 5, "h": 8, "w": 12, "height": 64, "width": 96}
_COMPRESSED = ("MatMul", "Convolution", "Gather")


class _Traced(nn.Module):
    """A function of a model as a module."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.call(self.model, *inputs)


def _text(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    output = model(ids, output_hidden_states=True)
    first = output.text_embeds if "text_embeds" in output else output.pooler_output
    return (first, output.last_hidden_state, *output.hidden_states)


def _unet(model: Any, sample: Any, timestep: Any, text: Any, *rest: Any) -> torch.Tensor:
    *condition, pooled, sizes = rest
    conditions = {"text_embeds": pooled, "time_ids": sizes}
    guidance = condition[0] if condition else None
    prediction: torch.Tensor = model(
        sample, timestep, text, timestep_cond=guidance, added_cond_kwargs=conditions
    ).sample
    return prediction


def export_as_optimum(saved: SavedSdxl, shape: SdxlShape, home: Path, weights: str = "f32") -> Path:
    """Export ``saved`` to ``home``, with weights "f32", "f16" or "int8"."""
    for folder in ("tokenizer", "tokenizer_2", "scheduler"):
        shutil.copytree(saved.home / folder, home / folder)
    shutil.copy(saved.home / "model_index.json", home)
    for part, of, (module, inputs, outputs) in _components(saved, shape):
        folder = home / part
        folder.mkdir()
        shutil.copy(saved.home / of / "config.json", folder)
        _export(module, inputs, outputs, folder / XML, halve=weights == "f16")
        if weights == "int8":
            _compress(folder / XML)
    (home / "openvino_config.json").write_text(json.dumps({"optimum_version": "2.3.0"}), encoding="utf-8")
    return home


def _components(saved: SavedSdxl, shape: SdxlShape) -> Any:
    models = saved.models
    for part, pooled, width in (
        ("text_encoder", ("pooler_output", shape.text_widths[0]), shape.text_widths[0]),
        ("text_encoder_2", ("text_embeds", shape.pooled_width), shape.text_widths[1]),
    ):
        encoder = getattr(models, part)
        states = ["last_hidden_state", *(f"hidden_states.{i}" for i in range(encoder.config.num_hidden_layers + 1))]
        outputs = {pooled[0]: Tensor(("b", pooled[1]), "f32")}
        outputs |= {name: Tensor(("b", "n", width), "f32") for name in states}
        yield part, part, (_Traced(encoder, _text), {"input_ids": Tensor(("b", "n"), "i64")}, outputs)
    latents, picture = Tensor(("b", 4, "h", "w"), "f32"), Tensor(("b", 3, "height", "width"), "f32")
    inputs = {
        "sample": latents,
        "timestep": Tensor((1,), "i64"),
        "encoder_hidden_states": Tensor(("b", 77, sum(shape.text_widths)), "f32"),
    }
    if shape.guidance_width is not None:
        inputs["timestep_cond"] = Tensor(("b", shape.guidance_width), "f32")
    inputs |= {"text_embeds": Tensor(("b", shape.pooled_width), "f32"), "time_ids": Tensor(("b", 6), "f32")}
    yield "unet", "unet", (_Traced(models.unet, _unet), inputs, {"out_sample": latents})
    decoder = _Traced(models.vae, lambda vae, z: vae.decode(z).sample)
    yield "vae_decoder", "vae", (decoder, {"latent_sample": latents}, {"sample": picture})
    encoder = _Traced(models.vae, lambda vae, x: vae.encode(x).latent_dist.parameters)
    moments = Tensor(("b", 8, "h", "w"), "f32")
    yield "vae_encoder", "vae", (encoder, {"sample": picture}, {"latent_parameters": moments})


def put_tiny_vae_in_place(saved: SavedSdxl, home: Path, latents_name: str) -> None:
    """Replace the VAE of an export by the tiny one, as OpenVINO's notebook of SDXL-Turbo does.

    Its encoder's output has been called "latents", and is called "latent_sample".
    """
    latents, picture = Tensor(("b", 4, "h", "w"), "f32"), Tensor(("b", 3, "height", "width"), "f32")
    vae = saved.models.tiny_vae
    for half, call, takes, gives in (
        ("decoder", lambda vae, z: vae.decode(z).sample, {"latent_sample": latents}, {"sample": picture}),
        ("encoder", lambda vae, x: vae.encode(x).latents, {"sample": picture}, {latents_name: latents}),
    ):
        _export(_Traced(vae, call), takes, gives, home / f"vae_{half}" / XML)
        shutil.copy(saved.tiny_vae / "config.json", home / f"vae_{half}")


def _export(module: nn.Module, inputs: Ports, outputs: Ports, file: Path, *, halve: bool = False) -> None:
    """Trace a module and write it as IR, with names for its arguments and results in order."""
    shapes = [[_SIZES[size] if isinstance(size, str) else size for size in each.shape] for each in inputs.values()]
    kinds = [torch.int64 if each.dtype == "i64" else torch.float32 for each in inputs.values()]
    examples = tuple(torch.ones(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True))
    # What ov.convert_model does, but for its reports to OpenVINO's makers.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing being deprecated, and the libraries' models of being traced
        traced = TorchScriptPythonDecoder(module.eval(), example_input=examples, trace_kwargs={"check_trace": False})
        frontend = FrontEndManager().load_by_framework("pytorch")
        source = frontend.load(traced)
        for index, each in enumerate(inputs.values()):
            shape = ov.PartialShape([-1 if isinstance(size, str) else size for size in each.shape])
            source.set_partial_shape(source.get_place_by_input_index(index), shape)
        model: ov.Model = frontend.convert(source)
    apply_moc_transformations(model, cf=False, smart_reshape=True)
    for ports, names in ((model.inputs, inputs), (model.outputs, outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    if halve:
        _halve(model)
    ov.save_model(model, file, compress_to_fp16=False)


def _halve(model: ov.Model) -> None:
    """Store matrices in f16. Vectors stay in f32, among them the frequencies of times."""
    for node in model.get_ops():
        is_float = node.get_type_name() == "Constant" and node.get_output_element_type(0) == ov.Type.f32
        if not is_float or sum(size > 1 for size in node.shape) < 2:
            continue
        users = list(node.output(0).get_target_inputs())
        restored = opset.convert(opset.constant(node.data.astype(np.float16)), "f32").output(0)
        for user in users:
            user.replace_source_output(restored)


def _compress(xml: Path) -> None:
    """Store matrices in int8, as NNCF does: (unsigned - zero point) · scale, both for each row."""
    model = ov.Core().read_model(xml)
    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32 or len(node.shape) < 2:
            continue
        users = list(node.output(0).get_target_inputs())
        if not any(user.get_node().get_type_name() in _COMPRESSED for user in users):
            continue
        values = node.data.copy()
        axes = tuple(range(1, values.ndim))
        low = np.minimum(values.min(axes, keepdims=True), 0)
        high = np.maximum(values.max(axes, keepdims=True), 0)
        scale = np.maximum((high - low) / 255, 1e-8).astype(np.float16)
        zero = np.clip(np.round(-low / scale), 0, 255).astype(np.uint8)
        stored = np.clip(np.round(values / scale) + zero, 0, 255).astype(np.uint8)
        number, offset = (opset.convert(opset.constant(each), "f16") for each in (stored, zero))
        restored = opset.multiply(opset.subtract(number, offset), opset.constant(scale))
        for user in users:
            user.replace_source_output(opset.convert(restored, "f32").output(0))
    written = xml.with_name("compressed.xml")
    ov.save_model(model, written, compress_to_fp16=False)
    del model
    written.replace(xml)
    written.with_suffix(".bin").replace(xml.with_suffix(".bin"))
