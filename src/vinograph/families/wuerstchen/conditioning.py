"""The conditioning of Würstchen's prior and decoder: encoded texts, and the image embeddings that the decoder gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Drawing, Parts
from vinograph.families.shared import note_dropped
from vinograph.families.wuerstchen.request import WuerstchenRequest as Request


@dataclass(frozen=True)
class DecoderConditioning:
    """What the decoder is told in every step: text keys and values, and the embeddings at each level's size."""

    text: Mapping[str, Array]

    def inputs(self, embeddings: Array, parts: Parts, grid: tuple[int, int], *, guided: bool) -> dict[str, Array]:
        """The constant inputs for latents of ``grid`` (height, width). Guidance adds rows without the picture."""
        told = np.concatenate([embeddings, np.zeros_like(embeddings)]) if guided else embeddings
        inputs = dict(self.text)
        for level in parts.config["effnet_levels"]:
            scale = parts.config["decoder_patch_size"] * 2**level
            inputs[f"effnet_{level}"] = resize_bicubic(told, grid[0] // scale, grid[1] // scale)
        return inputs


def resize_bicubic(maps: Array, height: int, width: int) -> Array:
    """Antialiased bicubic resize with aligned corners, equal to ``torch.nn.functional.interpolate``'s."""
    rows, columns = _resize_weights(maps.shape[2], height), _resize_weights(maps.shape[3], width)
    return np.ascontiguousarray(rows @ maps @ columns.T)


def _resize_weights(size: int, target: int) -> Array:
    """The matrix [target, size] of Keys' cubic convolution (1981, a = -1/2), widened where it shrinks."""
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


def _tokens(parts: Parts, prefix: str, prompts: Sequence[str], drawing: Drawing) -> Array:
    """Hidden states [prompts, tokens, width] of the text encoder of a stage (``prefix`` is "prior_" or "")."""
    tokens = parts.tokenizers[f"{prefix}tokenizer"](prompts)
    ids = note_dropped(tokens, drawing)
    encoded = parts.sessions[f"{prefix}text_encoder"]({"input_ids": ids, "attention_mask": tokens.mask})
    return encoded["hidden_states"]


def _negative(request: Request) -> tuple[str, ...]:
    return request.negative_prompt or ("",) * request.prompt_count


def check_prior_text(parts: Parts, request: Request, guided: bool) -> None:
    """Check the text embeddings that the request brings, against each other or against what will be encoded."""
    states, negative = request.prompt_embeds, request.negative_prompt_embeds if guided else None
    if states is None and negative is None:
        return
    width, given = parts.config["prior_text_width"], [each.shape for each in (states, negative) if each is not None]
    length = given[0][1]
    if states is None or (guided and negative is None):
        length = parts.tokenizers["prior_tokenizer"].max_length
    for shape in given:
        if shape != (request.prompt_count, length, width):
            raise RequestError(f"text embeddings have shape {shape}; give [prompts, tokens, {width}], all alike")


def prior_text(parts: Parts, request: Request, guided: bool, drawing: Drawing) -> dict[str, Array]:
    """Keys and values of the prior's text: one row a picture, then the unconditional rows under guidance."""
    states = request.prompt_embeds
    if states is None:
        states = _tokens(parts, "prior_", request.prompt or (), drawing)
    rows = [states]
    if guided:
        negative = request.negative_prompt_embeds
        rows.append(_tokens(parts, "prior_", _negative(request), drawing) if negative is None else negative)
    told = parts.sessions["prior_text"]({"hidden_states": np.concatenate(rows)})
    return {name: np.repeat(value, request.num_images_per_prompt or 1, axis=0) for name, value in told.items()}


def decoder_text(parts: Parts, request: Request, count: int, guided: bool, drawing: Drawing) -> DecoderConditioning:
    """The decoder's text for ``count`` pictures: one row a picture, then the unconditional rows under guidance."""
    texts = list(request.prompt or ("",))
    if "decoder_text" not in parts.sessions:
        return DecoderConditioning({})
    rows = np.repeat(np.arange(len(texts)), count // len(texts))
    if guided:
        negative = request.negative_prompt or ("",)
        rows = np.concatenate([rows, len(texts) + np.repeat(np.arange(len(negative)), count // len(negative))])
        texts += negative
    told = parts.sessions["decoder_text"]({"hidden_states": _tokens(parts, "", texts, drawing)})
    return DecoderConditioning({name: value[rows] for name, value in told.items()})
