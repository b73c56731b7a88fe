"""The way of OpenVINO's notebooks: models are converted, and put back into diffusers' pipeline.

Graphs are compiled for any shape with the runtime's defaults, and wrapped as modules that the
pipeline calls. SDXL's notebook leaves this to optimum-intel; here SDXL is done as Würstchen and
PixArt are.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openvino as ov
import torch
from diffusers.configuration_utils import FrozenDict
from openvino.frontend.pytorch import patch_model

from .common import OpenedSystem, RefusedError, Stopwatch, Task, prepare_once
from .diffusers_ import STAGES, build, load_part, parts_of, system_from_pipeline, tiny_vae, wants_tiny_vae

Inputs = dict[str, Any]
_16_BITS = ("F16", "BF16")
# Würstchen's scales: pixels to one cell of Stage C's embedding, and Stage B's latents to one such
# cell.
_EMBEDDED, _LATENTS = 42.67, 10.67


@dataclass(frozen=True)
class _Kind:
    """How a class of models is wrapped: its inputs, the traced function, and its outputs."""

    inputs: Callable[..., Inputs]
    trace: Callable[..., Any]
    outputs: Callable[[list[Any]], Any] = tuple
    method: str = "forward"


class _Outputs(SimpleNamespace):
    """Outputs by name and by number, as those of transformers."""

    def __getitem__(self, index: int) -> Any:
        return [*vars(self).values()][index]


def _text_inputs(input_ids: Any, attention_mask: Any = None, **_: Any) -> Inputs:
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    return {"input_ids": input_ids, "attention_mask": mask}


def _trace_clip(model: Any, input_ids: Any, attention_mask: Any) -> Any:
    out = model(input_ids, attention_mask=attention_mask, output_hidden_states=True)
    first = out.text_embeds if hasattr(out, "text_embeds") else out.last_hidden_state
    return (first, out.last_hidden_state, *out.hidden_states)


def _clip_outputs(values: list[Any]) -> Any:
    return _Outputs(first=values[0], last_hidden_state=values[1], hidden_states=tuple(values[2:]))


def _trace_unet(model: Any, sample: Any, timestep: Any, states: Any, text_embeds: Any, time_ids: Any) -> Any:
    added = {"text_embeds": text_embeds, "time_ids": time_ids}
    return model(sample, timestep, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False)[0]


def _unet_inputs(sample: Any, timestep: Any, encoder_hidden_states: Any, added_cond_kwargs: Any, **more: Any) -> Inputs:
    if more.get("timestep_cond") is not None:
        raise RefusedError("the notebooks' way has no UNet with an embedding of the guidance scale")
    return {"sample": sample, "timestep": timestep, "states": encoder_hidden_states, **added_cond_kwargs}


def _transformer_inputs(
    hidden_states: Any,
    encoder_hidden_states: Any,
    encoder_attention_mask: Any,
    timestep: Any,
    added_cond_kwargs: Mapping[str, Any],
    **_: Any,
) -> Inputs:
    conditions = {name: value for name, value in added_cond_kwargs.items() if value is not None}
    inputs = {"sample": hidden_states, "states": encoder_hidden_states}
    return {**inputs, "mask": encoder_attention_mask, "time": timestep, **conditions}


def _trace_transformer(
    model: Any, sample: Any, states: Any, mask: Any, time: Any, resolution: Any = None, aspect_ratio: Any = None
) -> Any:
    added = {"resolution": resolution, "aspect_ratio": aspect_ratio}
    return model(
        sample,
        encoder_hidden_states=states,
        encoder_attention_mask=mask,
        timestep=time,
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


_CLIP = _Kind(_text_inputs, _trace_clip, _clip_outputs)
_VAE = _Kind(lambda z, **_: {"latents": z}, lambda model, z: model.decode(z, return_dict=False)[0], method="decode")
_KINDS: Mapping[str, _Kind] = {
    "CLIPTextModel": _CLIP,
    "CLIPTextModelWithProjection": _CLIP,
    "T5EncoderModel": _Kind(_text_inputs, lambda model, ids, mask: model(ids, attention_mask=mask)[0]),
    "UNet2DConditionModel": _Kind(_unet_inputs, _trace_unet),
    "PixArtTransformer2DModel": _Kind(_transformer_inputs, _trace_transformer),
    "WuerstchenPrior": _Kind(
        lambda x, r, c: {"x": x, "r": r, "c": c}, lambda model, x, r, c: model(x, r, c), lambda values: values[0]
    ),
    "WuerstchenDiffNeXt": _Kind(
        lambda x, r, effnet, clip: {"x": x, "r": r, "effnet": effnet, "clip": clip},
        lambda model, x, r, effnet, clip: model(x, r, effnet, clip=clip),
        lambda values: values[0],
    ),
    "AutoencoderKL": _VAE,
    "AutoencoderTiny": _VAE,
    "PaellaVQModel": _Kind(
        lambda h, **_: {"latents": h},
        lambda model, h: model.decode(h, return_dict=False)[0],
        lambda values: _Outputs(sample=values[0]),
        "decode",
    ),
}


def prepare(task: Task) -> None:
    """Convert the checkpoint's models one after the other, and write their configurations, too."""
    with prepare_once(task, Path(task.work)) as folder:
        if folder is None:
            return
        for home, name, library, kind in _parts(task):
            if kind in _KINDS:
                _convert(task, home, name, library, kind, folder)


def _parts(task: Task) -> Iterator[tuple[Path, str, str, str]]:
    """The checkpoint's components, with its tiny VAE where the task wants that."""
    for home, name, library, kind in parts_of(task):
        if name == "vae" and wants_tiny_vae(task):
            yield tiny_vae(task), name, library, "AutoencoderTiny"
        else:
            yield home, name, library, kind


def _convert(task: Task, home: Path, name: str, library: str, kind: str, folder: Path) -> None:
    half = _stored_in(home) in _16_BITS
    model = load_part(home, library, kind, torch.float16 if half else torch.float32)
    if half:  # the weights stay in 16 bits, while the model is traced in f32
        patch_model.__make_16bit_traceable(model)
    config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
    example = {key: value for key, value in _example(task, kind, config).items() if value is not None}

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            return _KINDS[kind].trace(self.model, *values)

    with torch.no_grad():
        converted = ov.convert_model(Traced(), example_input=tuple(example.values()))
    if len(converted.inputs) != len(example):
        raise RefusedError(f"converted, {name} has {len(converted.inputs)} inputs of {len(example)}")
    ov.save_model(converted, folder / f"{name}.xml", compress_to_fp16=True)
    wrapper = {"config": config, "inputs": list(example), "kind": kind}
    (folder / f"{name}.json").write_text(json.dumps(wrapper, default=str), encoding="utf-8")


def _stored_in(home: Path) -> str:
    """The safetensors type of the first weights in a folder."""
    with min(home.glob("*.safetensors")).open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return next(str(each["dtype"]) for key, each in header.items() if key != "__metadata__")


def _example(task: Task, kind: str, config: Mapping[str, Any]) -> Inputs:
    """Inputs to trace a model with, in the task's size, to which some models' graphs are fixed."""
    height, width = task.settings["height"], task.settings["width"]
    f32 = torch.float32
    if kind in ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"):
        ids = torch.ones(2, 20 if kind == "T5EncoderModel" else config["max_position_embeddings"], dtype=torch.int64)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind == "UNet2DConditionModel":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        return {
            "sample": torch.zeros(2, config["in_channels"], height // 8, width // 8),
            "timestep": torch.tensor(1.0),
            "states": torch.zeros(2, 77, config["cross_attention_dim"]),
            "text_embeds": torch.zeros(2, pooled),
            "time_ids": torch.zeros(2, 6),
        }
    if kind == "PixArtTransformer2DModel":
        height, width = _binned(task, config["sample_size"])
        conditioned = config["use_additional_conditions"]
        conditioned = config["sample_size"] == 128 if conditioned is None else conditioned
        return {
            "sample": torch.zeros(2, config["in_channels"], height // 8, width // 8),
            "states": torch.zeros(2, 120, config["caption_channels"]),
            "mask": torch.ones(2, 120, dtype=torch.int64),
            "time": torch.ones(2, dtype=torch.int64),
            "resolution": torch.ones(2, 2, dtype=f32) if conditioned else None,
            "aspect_ratio": torch.ones(2, 1, dtype=f32) if conditioned else None,
        }
    embedded = [math.ceil(side / _EMBEDDED) for side in (height, width)]
    if kind == "WuerstchenPrior":
        return {
            "x": torch.zeros(2, config["c_in"], *embedded),
            "r": torch.ones(2),
            "c": torch.zeros(2, 77, config["c_cond"]),
        }
    if kind == "WuerstchenDiffNeXt":
        return {
            "x": torch.zeros(2, config["c_in"], *(int(side * _LATENTS) for side in embedded)),
            "r": torch.ones(2),
            "effnet": torch.zeros(2, config["effnet_embd"], *embedded),
            "clip": torch.zeros(2, 77, config["clip_embd"]),
        }
    return {"latents": torch.zeros(1, config["latent_channels"], 32, 32)}


def _binned(task: Task, sample_size: int) -> tuple[int, int]:
    """The height and width of the resolution bin that PixArt's pipeline draws at."""
    height, width = task.settings["height"], task.settings["width"]
    if not task.settings.get("use_resolution_binning"):
        return height, width
    from diffusers.image_processor import PixArtImageProcessor
    from diffusers.pipelines.pixart_alpha import pipeline_pixart_alpha as home

    sizes: Any = getattr(home, f"ASPECT_RATIO_{8 * sample_size}_BIN")
    processor: Any = PixArtImageProcessor
    binned: tuple[int, int] = processor.classify_height_width_bin(height, width, ratios=sizes)
    return binned


class _Compiled(torch.nn.Module):
    """A compiled model behind the interface that a pipeline calls."""

    def __init__(self, folder: Path, name: str, task: Task) -> None:
        super().__init__()
        wrapper = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        kind = _KINDS[wrapper["kind"]]
        frozen: Any = FrozenDict
        self.config = frozen(wrapper["config"])
        compiled = ov.Core().compile_model(folder / f"{name}.xml", task.device, task.compile_settings())
        # The pipeline of SDXL asks how wide an embedding is.
        width = self.config.get("projection_class_embeddings_input_dim")
        self.add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=width))
        self.dtype, self.device = torch.float32, torch.device("cpu")

        def call(*args: Any, **kwargs: Any) -> Any:
            given = kind.inputs(*args, **kwargs)
            values = compiled([given[each].numpy() for each in wrapper["inputs"]])
            return kind.outputs([torch.from_numpy(each.copy()) for each in values.values()])

        self.call, self.method = call, kind.method
        setattr(self, kind.method, call)


def open_system(task: Task) -> OpenedSystem:
    """Compile every model for any shape, and put it into diffusers' pipeline."""
    folder, stopwatch = Path(task.work), Stopwatch()
    names = {home: name for home, name, _, kind in parts_of(task) if kind in _KINDS}

    def load(home: Path, library: str, kind: str) -> Any:
        if home not in names:
            return load_part(home, library, kind, None)
        part = _Compiled(folder, names[home], task)
        stopwatch.time_calls(part, part.method, STAGES[names[home]])
        return part

    pipe = build(task, load)
    return system_from_pipeline(pipe, task, stopwatch, f"{task.device} {task.precision}")
