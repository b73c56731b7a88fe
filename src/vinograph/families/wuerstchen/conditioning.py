"""The conditioning of Würstchen's prior and decoder: encoded texts and image embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Components, Output
from vinograph.families.shared import note_dropped
from vinograph.families.wuerstchen.config import WuerstchenConfig
from vinograph.families.wuerstchen.request import WuerstchenRequest
from vinograph.images import Size

WuerstchenComponents = Components[WuerstchenConfig]


@dataclass(frozen=True)
class DecoderConditioning:
    """The ``text`` keys and values of the decoder, which stay the same in every step."""

    text: Mapping[str, Array]

    def inputs(self, embeddings: Array, config: WuerstchenConfig, grid: Size, *, guided: bool) -> dict[str, Array]:
        """Text and ``embeddings`` for latents of ``grid``.

        Under guidance, rows without the embeddings come last.
        """
        rows = np.concatenate([embeddings, np.zeros_like(embeddings)]) if guided else embeddings
        inputs = dict(self.text)
        for level in config.effnet_levels:
            scale = config.decoder_patch_size * 2**level
            inputs[f"effnet_{level}"] = resize_bicubic(rows, grid.height // scale, grid.width // scale)
        return inputs


def resize_bicubic(maps: Array, height: int, width: int) -> Array:
    """Antialiased bicubic resize with aligned corners, equal to torch's ``interpolate``."""
    rows, columns = _resize_weights(maps.shape[2], height), _resize_weights(maps.shape[3], width)
    return np.ascontiguousarray(rows @ maps @ columns.T)


def _resize_weights(size: int, target: int) -> Array:
    """Matrix [target, size] of Keys' cubic convolution (1981, a = -1/2), stretched to shrink."""
    scale = (size - 1) / (target - 1) if target > 1 else 0.0
    stretch = max(scale, 1.0)
    weights = np.zeros((target, size))
    for row in range(target):
        centre = scale * (row + 0.5)
        first = max(int(centre - 2 * stretch + 0.5), 0)
        last = min(int(centre + 2 * stretch + 0.5), size)
        taps = _cubic((np.arange(first, last) - centre + 0.5) / stretch)
        weights[row, first:last] = taps / taps.sum()
    return weights.astype(np.float32)


def _cubic(x: NDArray[np.floating]) -> NDArray[np.floating]:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _encode(components: WuerstchenComponents, prefix: str, prompts: Sequence[str], out: Output) -> Array:
    """Hidden states [prompts, tokens, width] of a stage, whose ``prefix`` is "prior_" or ""."""
    tokens = components.tokenizers[f"{prefix}tokenizer"](prompts)
    ids = note_dropped(tokens, out)
    encoded = components.sessions[f"{prefix}text_encoder"]({"input_ids": ids, "attention_mask": tokens.mask})
    return encoded["hidden_states"]


def _negative(request: WuerstchenRequest) -> tuple[str, ...]:
    return request.negative_prompt or ("",) * request.prompt_count


def check_prior_text(components: WuerstchenComponents, request: WuerstchenRequest, guided: bool) -> None:
    """Check the shapes of the text embeddings that the request brings.

    Raises:
        RequestError: they have another shape.
    """
    states, negative = request.prompt_embeds, request.negative_prompt_embeds if guided else None
    if states is None and negative is None:
        return
    width = components.config.prior_text_width
    given = [each.shape for each in (states, negative) if each is not None]
    length = given[0][1]
    if states is None or (guided and negative is None):
        length = components.tokenizers["prior_tokenizer"].max_length
    for shape in given:
        if shape != (request.prompt_count, length, width):
            raise RequestError(f"text embeddings have shape {shape}; give [prompts, tokens, {width}], all alike")


def prior_text(
    components: WuerstchenComponents, request: WuerstchenRequest, guided: bool, out: Output
) -> dict[str, Array]:
    """The prior's keys and values, one row a picture; under guidance, negative rows follow."""
    states = request.prompt_embeds
    if states is None:
        states = _encode(components, "prior_", request.prompt or (), out)
    rows = [states]
    if guided:
        negative = request.negative_prompt_embeds
        rows.append(_encode(components, "prior_", _negative(request), out) if negative is None else negative)
    text = components.sessions["prior_text"]({"hidden_states": np.concatenate(rows)})
    return {name: np.repeat(value, request.num_images_per_prompt or 1, axis=0) for name, value in text.items()}


def decoder_text(
    components: WuerstchenComponents, request: WuerstchenRequest, count: int, guided: bool, out: Output
) -> DecoderConditioning:
    """The decoder's text for ``count`` pictures; under guidance, negative rows follow."""
    texts = list(request.prompt or ("",))
    if "decoder_text" not in components.sessions:
        return DecoderConditioning({})
    rows = np.repeat(np.arange(len(texts)), count // len(texts))
    if guided:
        negative = request.negative_prompt or ("",)
        rows = np.concatenate([rows, len(texts) + np.repeat(np.arange(len(negative)), count // len(negative))])
        texts += negative
    text = components.sessions["decoder_text"]({"hidden_states": _encode(components, "", texts, out)})
    return DecoderConditioning({name: value[rows] for name, value in text.items()})
