"""What PixArt's transformer is told of the text: what T5 makes of it (Raffel et al., arXiv 1910.10683).

Padding is masked in T5 and in the transformer alike, so that leaving it out changes nothing. T5 reads the real tokens
alone, filled up to one of a few lengths, for each of which its graph is compiled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Drawing, Parts
from vinograph.families.pixart.captions import cleaned_or_plain, plain
from vinograph.families.pixart.request import PixArtRequest as Request
from vinograph.families.shared import note_dropped

_LENGTHS = (16, 32, 64, 128)  # tokens; more are filled up to a multiple of the last


@dataclass(frozen=True)
class Told:
    """One row a picture; under guidance, the unconditional rows come first.

    ``states`` [n, tokens, width], ``mask`` [n, tokens]: 1 where there is a token.
    """

    states: Array
    mask: NDArray[np.int64]

    @property
    def length(self) -> int:
        """The tokens of each row, padding among them."""
        return int(self.states.shape[1])

    def repeated(self, count: int) -> Told:
        """Each row ``count`` times."""
        return Told(np.repeat(self.states, count, axis=0), np.repeat(self.mask, count, axis=0))

    def filled(self, length: int) -> Told:
        """With padding up to ``length`` tokens."""
        more = length - self.length
        return Told(np.pad(self.states, ((0, 0), (0, more), (0, 0))), np.pad(self.mask, ((0, 0), (0, more))))


@dataclass(frozen=True)
class Ids:
    """The token ids [n] of each prompt: those of real tokens alone."""

    rows: tuple[NDArray[np.int64], ...]

    @property
    def length(self) -> int:
        """The tokens of each row once they are all filled up."""
        return _filled_length(max(len(each) for each in self.rows))


@dataclass(frozen=True)
class Texts:
    """What ``request`` says, to be encoded. ``rows`` has the prompts; under guidance, before them the negative ones."""

    request: Request
    rows: tuple[Ids | Told, ...]

    @property
    def length(self) -> int:
        """The tokens that the transformer will be told of each prompt, padding among them."""
        return max(each.length for each in self.rows)

    def encoded(self, parts: Parts) -> Told:
        """What the transformer is told: one row a picture."""
        told = [_encoded(parts, each) if isinstance(each, Ids) else each for each in self.rows]
        rows = [each.filled(self.length).repeated(self.request.num_images_per_prompt or 1) for each in told]
        return Told(np.concatenate([each.states for each in rows]), np.concatenate([each.mask for each in rows]))


def check_texts(parts: Parts, request: Request, guided: bool) -> None:
    """Check the embeddings that ``request`` brings.

    Raises:
        RequestError: embeddings or masks of the wrong shape, or texts beside them.
    """
    if request.prompt is not None and request.prompt_embeds is not None:
        raise RequestError("give prompt or prompt_embeds, not both")
    if request.prompt_embeds is not None and request.prompt_attention_mask is not None:
        _given(parts, request.prompt_embeds, request.prompt_attention_mask, "prompt_embeds")
    states, mask = request.negative_prompt_embeds, request.negative_prompt_attention_mask
    if not guided or states is None or mask is None:
        return
    if request.negative_prompt is not None:
        raise RequestError("give negative_prompt or negative_prompt_embeds, not both")
    negative = _given(parts, states, mask, "negative_prompt_embeds")
    if len(negative.states) != request.prompt_count:
        raise RequestError(
            f"negative_prompt_embeds are of {len(negative.states)} prompts, and there are {request.prompt_count}; "
            "give one row for each"
        )


def texts_of(parts: Parts, request: Request, guided: bool, out: Drawing) -> Texts:
    """The texts of ``request``, which are checked, as tokens or as the embeddings that it brings."""
    limit = request.max_sequence_length or parts.config["text_length"]
    rows = [_conditional(parts, request, limit, out)]
    if guided:
        rows.insert(0, _unconditional(parts, request, rows[0], limit, out))
    return Texts(request, tuple(rows))


def _conditional(parts: Parts, request: Request, limit: int, out: Drawing) -> Ids | Told:
    if request.prompt_embeds is not None and request.prompt_attention_mask is not None:
        return _given(parts, request.prompt_embeds, request.prompt_attention_mask, "prompt_embeds")
    return _read(parts, request, request.prompt or (), limit, out)


def _unconditional(parts: Parts, request: Request, text: Ids | Told, limit: int, out: Drawing) -> Ids | Told:
    states, mask = request.negative_prompt_embeds, request.negative_prompt_attention_mask
    if states is not None and mask is not None:
        return _given(parts, states, mask, "negative_prompt_embeds")
    limit = text.length if isinstance(text, Told) else limit
    return _read(parts, request, request.negative_prompt or ("",) * request.prompt_count, limit, out)


def _given(parts: Parts, states: Array, mask: Array, name: str) -> Told:
    width = parts.config["text_width"]
    if states.shape[2] != width or mask.shape != states.shape[:2]:
        raise RequestError(
            f"{name} and its attention mask have shapes {states.shape} and {mask.shape}; "
            f"give [prompts, tokens, {width}] and [prompts, tokens]"
        )
    return Told(states, mask.astype(np.int64))


def _read(parts: Parts, request: Request, prompts: Sequence[str], limit: int, out: Drawing) -> Ids:
    texts = tuple(plain(each) for each in prompts)
    if request.clean_caption:
        texts, warning = cleaned_or_plain(prompts)
        if warning is not None and warning not in out.warnings:
            out.warnings.append(warning)
    tokens = parts.tokenizers["tokenizer"](texts, limit)
    ids = note_dropped(tokens, out)
    return Ids(tuple(row[mask == 1] for row, mask in zip(ids, tokens.mask, strict=True)))


def _encoded(parts: Parts, ids: Ids) -> Told:
    states = [_states(parts, each, ids.length) for each in ids.rows]
    rows = [Told(each[None], np.ones((1, len(each)), np.int64)).filled(ids.length) for each in states]
    return Told(np.concatenate([each.states for each in rows]), np.concatenate([each.mask for each in rows]))


def _states(parts: Parts, ids: NDArray[np.int64], length: int) -> Array:
    """T5's last hidden states [tokens, width] of one prompt; those of the prompts read last are remembered."""
    key = ("text_encoder", ids.tobytes())
    known = parts.remembered.get(key)
    if known is not None:
        return known
    padded = np.full((1, length), parts.tokenizers["tokenizer"].pad_id, np.int64)
    mask = np.zeros((1, length), np.int64)
    padded[0, : len(ids)], mask[0, : len(ids)] = ids, 1
    states = parts.sessions["text_encoder"]({"input_ids": padded, "attention_mask": mask})["hidden_states"]
    return parts.remembered.keep(key, states[0, : len(ids)].copy())


def _filled_length(tokens: int) -> int:
    """The length that so many tokens are filled up to."""
    return next((each for each in _LENGTHS if tokens <= each), -(-tokens // _LENGTHS[-1]) * _LENGTHS[-1])
