"""What SDXL's UNet is told: the text, by two encoders, and the sizes of the picture (arXiv 2307.01952, section 2.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Drawing, Parts
from vinograph.families.sdxl.request import SDXLRequest as Request
from vinograph.families.shared import note_dropped
from vinograph.schema import Whole


@dataclass(frozen=True)
class Told:
    """The constant inputs of the UNet, one row a picture; under guidance, the unconditional rows come first.

    ``prompt_embeds`` [n, tokens, width], ``add_text_embeds`` [n, pooled width], ``add_time_ids`` [n, 6] (original
    height and width, top and left of the crop, target height and width). ``timestep_cond`` [n, width] is the guidance
    scale, for a UNet that wants to know it.
    """

    prompt_embeds: Array
    add_text_embeds: Array
    add_time_ids: Array
    timestep_cond: Array | None = None

    @property
    def inputs(self) -> dict[str, Array]:
        """By the UNet's names."""
        inputs = {
            "encoder_hidden_states": self.prompt_embeds,
            "text_embeds": self.add_text_embeds,
            "time_ids": self.add_time_ids,
        }
        return inputs if self.timestep_cond is None else {**inputs, "timestep_cond": self.timestep_cond}

    @property
    def tensors(self) -> dict[str, Array]:
        """By the names that callbacks know, which are diffusers'."""
        return {name: getattr(self, name) for name in TENSORS}

    def changed(self, tensors: Mapping[str, Array]) -> Told:
        """With what a callback returned in place of some of them."""
        return dataclasses.replace(self, **tensors)


TimeIds = tuple[tuple[int, ...], tuple[int, ...]]
TENSORS = ("prompt_embeds", "add_text_embeds", "add_time_ids")


@dataclass(frozen=True)
class _Text:
    """Hidden states [prompts, tokens, width] and pooled embeddings [prompts, pooled width]."""

    states: Array
    pooled: Array

    def repeated(self, count: int) -> _Text:
        """Each prompt's row ``count`` times."""
        return _Text(np.repeat(self.states, count, axis=0), np.repeat(self.pooled, count, axis=0))


def check_texts(parts: Parts, request: Request, guided: bool) -> None:
    """Check all of the request's texts and embeddings that can be checked before any of them is encoded.

    Raises:
        RequestError: embeddings of the wrong shape, texts beside them, or a ``clip_skip`` beyond the encoders' layers.
    """
    shape = None
    if request.prompt is not None and request.prompt_embeds is not None:
        raise RequestError("give prompt or prompt_embeds, not both")
    if request.prompt_embeds is not None and request.pooled_prompt_embeds is not None:
        shape = _given(parts, request.prompt_embeds, request.pooled_prompt_embeds, "prompt_embeds").states.shape
    elif not 0 <= (request.clip_skip or 0) < _layers(parts):
        raise RequestError(
            f"clip_skip is {request.clip_skip}; this model's text encoders take a whole number "
            f"from 0 to {_layers(parts) - 1}"
        )
    if not guided:
        return
    if request.negative_prompt is not None and request.negative_prompt_embeds is not None:
        raise RequestError("give negative_prompt or negative_prompt_embeds, not both")
    negative = None
    if request.negative_prompt_embeds is not None and request.negative_pooled_prompt_embeds is not None:
        states, pooled = request.negative_prompt_embeds, request.negative_pooled_prompt_embeds
        negative = _given(parts, states, pooled, "negative_prompt_embeds").states.shape
    elif request.negative_prompt is None and parts.config["force_zeros_for_empty_prompt"]:
        return
    encoded = (request.prompt_count, parts.tokenizers["tokenizer"].max_length, sum(parts.config["text_widths"]))
    if (negative or encoded) != (shape or encoded):
        raise RequestError(
            f"the negative prompt's embeddings have shape {negative or encoded}, the prompt's {shape or encoded}; "
            "give both alike"
        )


_ENCODERS = ("text_encoder", "text_encoder_2")
_LAYERS = Whole(1, 512)


def check_layers(outputs: Mapping[str, Mapping[str, Sequence[int | str]]]) -> None:
    """Check that the text encoders, where they are, say how many layers they give.

    Raises:
        SchemaError: one doesn't.
    """
    for name in _ENCODERS:
        if name in outputs:
            shape = outputs[name].get("hidden_states", ())
            _LAYERS.check(f"components.{name}.outputs.hidden_states.shape[1]", shape[1] if len(shape) > 1 else None)


def _layers(parts: Parts) -> int:
    """How many layers both text encoders give."""
    return min(int(parts.outputs[name]["hidden_states"][1]) for name in _ENCODERS)


def told_to_the_unet(parts: Parts, request: Request, all_times: TimeIds, guided: bool, out: Drawing) -> Told:
    """What the UNet is told of ``request``, whose texts are checked, and of the sizes in ``all_times``."""
    text = _conditional(parts, request, out)
    rows = [text]
    times, negative_times = all_times
    told_times = [times]
    if guided:
        rows.insert(0, _unconditional(parts, request, text, out))
        told_times.insert(0, negative_times)
    rows = [each.repeated(request.num_images_per_prompt or 1) for each in rows]
    count = request.image_count
    return Told(
        prompt_embeds=np.concatenate([each.states for each in rows]),
        add_text_embeds=np.concatenate([each.pooled for each in rows]),
        add_time_ids=np.repeat(np.array(told_times, np.float32), count, axis=0),
        timestep_cond=_guidance_embedding(parts, request, count),
    )


def _conditional(parts: Parts, request: Request, out: Drawing) -> _Text:
    if request.prompt_embeds is not None and request.pooled_prompt_embeds is not None:
        return _given(parts, request.prompt_embeds, request.pooled_prompt_embeds, "prompt_embeds")
    prompts = request.prompt or ()
    return _encode(parts, prompts, _second(request.prompt_2, prompts), request.clip_skip or 0, out)


def _unconditional(parts: Parts, request: Request, text: _Text, out: Drawing) -> _Text:
    if request.negative_prompt_embeds is not None and request.negative_pooled_prompt_embeds is not None:
        states, pooled = request.negative_prompt_embeds, request.negative_pooled_prompt_embeds
        return _given(parts, states, pooled, "negative_prompt_embeds")
    if request.negative_prompt is None and parts.config["force_zeros_for_empty_prompt"]:
        return _Text(np.zeros_like(text.states), np.zeros_like(text.pooled))
    prompts = request.negative_prompt or ("",) * len(text.states)
    return _encode(parts, prompts, _second(request.negative_prompt_2, prompts), 0, out)


def _second(texts: tuple[str, ...] | None, first: Sequence[str]) -> Sequence[str]:
    """The texts for the second encoder: those of the first, where there are none of its own."""
    return texts if texts is not None and any(texts) else first


def _given(parts: Parts, states: Array, pooled: Array, name: str) -> _Text:
    width, pooled_width = sum(parts.config["text_widths"]), parts.config["pooled_width"]
    if states.shape[2] != width or pooled.shape != (len(states), pooled_width):
        raise RequestError(
            f"{name} and its pooled embeddings have shapes {states.shape} and {pooled.shape}; "
            f"give [prompts, tokens, {width}] and [prompts, {pooled_width}]"
        )
    return _Text(states, pooled)


def _encode(parts: Parts, prompts: Sequence[str], second: Sequence[str], skip: int, out: Drawing) -> _Text:
    """Both encoders' hidden states, side by side, ``skip`` layers before the last but one; the second's pooled text."""
    encoded = [
        parts.sessions[f"text_encoder{suffix}"](
            {"input_ids": note_dropped(parts.tokenizers[f"tokenizer{suffix}"](texts), out)}
        )
        for suffix, texts in (("", prompts), ("_2", second))
    ]
    layers = [each["hidden_states"] for each in encoded]
    states = np.concatenate([each[:, -1 - skip] for each in layers], axis=2)
    return _Text(states, encoded[1]["text_embeds"])


def time_ids(request: Request, size: tuple[int, int], out: Drawing) -> TimeIds:
    """The six numbers for the prompt, and those for the negative one, for pictures of ``size`` (height, width).

    diffusers reads the negative ones otherwise in text to image (both sizes, or none of the three) than from a
    picture (each size alone; the crop is the positive one's). So do we, and say what was ignored.
    """
    original, target = request.original_size or size, request.target_size or size
    crop = request.crops_coords_top_left or (0, 0)
    times = (*original, *crop, *target)
    away, away_target = request.negative_original_size, request.negative_target_size
    away_crop = request.negative_crops_coords_top_left or (0, 0)
    if request.image is not None:
        if away_crop not in ((0, 0), crop):
            out.warnings.append(
                "negative_crops_coords_top_left was ignored: from an image, the crop is the positive one"
            )
        return times, (*(away or original), *crop, *(away_target or target))
    if away is None or away_target is None:
        if away or away_target or away_crop != (0, 0):
            raise RequestError(
                "give both negative_original_size and negative_target_size, or none of the negative sizes"
            )
        return times, times
    return times, (*away, *away_crop, *away_target)


def _guidance_embedding(parts: Parts, request: Request, count: int) -> Array | None:
    """Sines and cosines of the guidance scale (Meng et al., arXiv 2210.03142), for a UNet that is told it."""
    width = int(parts.config["time_cond_width"])
    if not width:
        return None
    half = width // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -np.float32(math.log(10000.0) / (half - 1)))
    angles = np.float32((request.guidance_scale or 0.0) - 1) * np.float32(1000) * frequencies
    row = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2, np.float32)])
    return np.repeat(row[None].astype(np.float32), count, axis=0)
