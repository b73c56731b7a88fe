"""Weighted and long prompts: tokens with weights, in chunks, and what the weights do.

A text encoder reads a limited number of tokens. A longer prompt is cut off, or is read in chunks
that are encoded one by one and joined. Where a chunk ends, and how a weight changes hidden states,
is as in the tools that prompts are written for: A1111's web UI and ComfyUI.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Output
from vinograph.prompt_syntax import (
    SYNTAXES,
    Segment,
    Segments,
    has_break,
    has_numbers,
    has_schedule,
    plain_segments,
    split_at_breaks,
)
from vinograph.text import Token, Tokenizer
from vinograph.values import shown

NO_WEIGHTS = "none"
CHUNKS = "chunks"
MOST_CHUNKS = 32
_LARGEST_WEIGHT = 1000.0
_COMMA = ",</w>"  # in CLIP's vocabulary
_COMMA_REACH = 20  # tokens: A1111 ends a chunk after a comma that is at most so far back
_UNBROKEN = 8  # tokens: ComfyUI moves a shorter stretch of one weight to the next chunk whole


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are read: whose weights (``weighting``), and whether in ``chunks``."""

    weighting: str = NO_WEIGHTS
    chunks: bool = False

    @classmethod
    def of(cls, prompt_weighting: str | None, long_prompt: str | None = None) -> PromptOptions:
        """The options that a request's arguments say."""
        return cls(prompt_weighting or NO_WEIGHTS, long_prompt == CHUNKS)

    @property
    def are_plain(self) -> bool:
        """Whether prompts are read as diffusers reads them."""
        return self.weighting == NO_WEIGHTS and not self.chunks

    def read(self, prompt: str) -> Segments:
        """The segments of a prompt.

        Raises:
            RequestError: a weight is not a number of a usable size.
        """
        segments = SYNTAXES[self.weighting](prompt)
        for each in segments:
            if not (math.isfinite(each.weight) and abs(each.weight) <= _LARGEST_WEIGHT):
                raise RequestError(
                    f"the prompt gives {shown(each.text.strip())} the weight {each.weight:g}; give weights from "
                    f"-{_LARGEST_WEIGHT:g} to {_LARGEST_WEIGHT:g}, brackets within brackets multiplied"
                )
        return split_at_breaks(segments) if self.chunks or self.weighting != NO_WEIGHTS else segments

    def note_unread(self, prompts: Sequence[str] | None, out: Output) -> None:
        """Warn of syntax in ``prompts`` that has no effect under these options."""
        for prompt in prompts or ():
            for warning in self._unread(prompt):
                if warning not in out.warnings:
                    out.warnings.append(warning)

    def _unread(self, prompt: str) -> Iterator[str]:
        if self.weighting == NO_WEIGHTS:
            if has_numbers(prompt):
                yield (
                    "weights such as (word:1.2) were read as text; prompt_weighting a1111 or comfyui "
                    "(--prompt-weighting) gives them effect"
                )
            return
        if not self.chunks and has_break(prompt):
            yield "BREAK had no effect: without long_prompt chunks (--long-prompt), the prompt is read in one piece"
        if self.weighting == "a1111" and has_schedule(prompt):
            yield "[from:to:when] and [one|other] were read as text of less weight; words don't change during drawing"


@dataclass(frozen=True)
class WeightedTokens:
    """A prompt's tokens in chunks of equal length, each with its start, its end and padding.

    ``ids`` and ``weights`` are [chunks, length], of which ``counts`` are no padding. ``dropped`` is
    the text that was cut off.
    """

    ids: NDArray[np.int64]
    weights: Array
    counts: tuple[int, ...]
    dropped: str = ""

    def padded(self, count: int, empty: WeightedTokens) -> WeightedTokens:
        """The same with ``empty`` chunks up to ``count``."""
        more = count - len(self.ids)
        ids, weights = (np.repeat(each, more, axis=0) for each in (empty.ids, empty.weights))
        return WeightedTokens(
            np.concatenate([self.ids, ids]),
            np.concatenate([self.weights, weights]),
            (*self.counts, *empty.counts * more),
            self.dropped,
        )


@dataclass(frozen=True)
class _Piece:
    """A token of a segment, with its weight."""

    token: Token
    weight: float

    def __len__(self) -> int:
        return len(self.token.ids)


_Chunk = list[_Piece]


def _length(chunk: _Chunk) -> int:
    return sum(map(len, chunk))


class _ChunkWriter:
    """Fills chunks of at most ``length`` tokens, one after another."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.chunks: list[_Chunk] = [[]]

    @property
    def room(self) -> int:
        """Tokens that the current chunk still takes."""
        return self.length - _length(self.chunks[-1])

    def next(self, moved: int = 0) -> None:
        """Begin a chunk, with the last ``moved`` pieces of the current one."""
        current = self.chunks[-1]
        self.chunks.append(current[len(current) - moved :])
        del current[len(current) - moved :]

    def add(self, piece: _Piece) -> None:
        """Add a piece, to the next chunk if the current one has no room for it."""
        if len(piece) > self.room:
            self.next()
        self.chunks[-1].append(piece)


_Segment = tuple[Segment, list[_Piece]]
_Fill = Callable[[_ChunkWriter, list[_Piece], Tokenizer], None]


def _fill_plainly(writer: _ChunkWriter, pieces: list[_Piece], _: Tokenizer) -> None:
    """Fill each chunk to its end."""
    for piece in pieces:
        writer.add(piece)


def _fill_to_commas(writer: _ChunkWriter, pieces: list[_Piece], tokenizer: Tokenizer) -> None:
    """Fill chunks as A1111 does: what follows a comma near the end goes to the next chunk."""
    comma = tokenizer.id_of(_COMMA)
    for piece in pieces:
        if writer.room == 0 and piece.token.ids != (comma,):
            after = _pieces_after(writer.chunks[-1], comma)
            moved = writer.chunks[-1][len(writer.chunks[-1]) - after :] if after is not None else []
            if after is not None and _length(moved) < _COMMA_REACH:
                writer.next(after)
        writer.add(piece)


def _pieces_after(chunk: _Chunk, comma: int | None) -> int | None:
    """How many pieces follow the chunk's last comma; None where there is none."""
    return next((index for index, each in enumerate(reversed(chunk)) if each.token.ids == (comma,)), None)


def _fill_by_words(writer: _ChunkWriter, pieces: list[_Piece], _: Tokenizer) -> None:
    """Fill chunks as ComfyUI does: a short stretch of one weight is never split."""
    for is_learned, grouped in itertools.groupby(pieces, lambda each: each.token.is_learned):
        stretch = list(grouped)
        for group in [[each] for each in stretch] if is_learned else [stretch]:
            if _length(group) < _UNBROKEN and _length(group) > writer.room:
                writer.next()
            for piece in group:
                writer.add(piece)


_FILLS: Mapping[str, _Fill] = MappingProxyType(
    {NO_WEIGHTS: _fill_plainly, "a1111": _fill_to_commas, "comfyui": _fill_by_words}
)


def weighted_tokens(
    tokenizer: Tokenizer, segments: Segments, options: PromptOptions, max_length: int | None = None
) -> WeightedTokens:
    """Tokenize segments: in chunks of ``max_length`` tokens, or cut off after the first chunk.

    Each segment is tokenized alone, as in A1111 and ComfyUI. ``max_length`` counts the start and
    the end, and defaults to the tokenizer's own.

    Raises:
        RequestError: there are more than :data:`MOST_CHUNKS` chunks.
    """
    start, end = tokenizer.marks
    parts = [(each, [_Piece(token, each.weight) for token in tokenizer.tokens(each.text)]) for each in segments]
    length = max_length or tokenizer.max_length
    writer = _ChunkWriter(length - len(start) - len(end))
    if not options.chunks:
        dropped = _fill_one(writer, parts)
        return _rows(tokenizer, writer.chunks, length, dropped)
    for segment, pieces in parts:
        if segment.breaks:
            writer.next()
        _FILLS[options.weighting](writer, pieces, tokenizer)
    chunks = writer.chunks[:-1] if len(writer.chunks) > 1 and not writer.chunks[-1] else writer.chunks
    if len(chunks) > MOST_CHUNKS:
        raise RequestError(
            f"the prompt has {len(chunks):,} chunks of {writer.length} tokens; give at most {MOST_CHUNKS}"
        )
    return _rows(tokenizer, chunks, length)


def empty_tokens(tokenizer: Tokenizer) -> WeightedTokens:
    """The one chunk of an empty prompt."""
    return weighted_tokens(tokenizer, plain_segments(""), PromptOptions())


def _fill_one(writer: _ChunkWriter, parts: Sequence[_Segment]) -> str:
    """Fill a single chunk, and return the text that is left over."""
    for index, (segment, pieces) in enumerate(parts):
        for piece in pieces:
            if len(piece) > writer.room:
                rest = (each.text for each, _ in parts[index + 1 :])
                return "".join([segment.text[piece.token.begin :], *rest]).strip()
            writer.add(piece)
    return ""


def _rows(tokenizer: Tokenizer, chunks: Sequence[_Chunk], length: int, dropped: str = "") -> WeightedTokens:
    start, end = tokenizer.marks
    ids = np.full((len(chunks), length), tokenizer.pad_id, np.int64)
    weights = np.ones((len(chunks), length), np.float32)
    counts = []
    for row, chunk in enumerate(chunks):
        tokens = [*start, *(own for piece in chunk for own in piece.token.ids), *end]
        ids[row, : len(tokens)] = tokens
        weights[row, len(start) : len(tokens) - len(end)] = [piece.weight for piece in chunk for _ in piece.token.ids]
        counts.append(len(tokens))
    return WeightedTokens(ids, weights, tuple(counts), dropped)


def keep_mean(states: Array, weights: Array, _: Callable[[], Array]) -> Array:
    """A1111's rule: multiply states [n, width] by weights [n], then restore the mean of all values.

    Raises:
        RequestError: the weighted values have the mean 0.
    """
    weighted = states * weights[:, None]
    mean = weighted.mean(dtype=np.float64)
    if mean == 0:
        raise RequestError("the weights of the prompt cancel each other out; give others, or the rules of comfyui")
    return np.asarray(weighted * (states.mean(dtype=np.float64) / mean), np.float32)


def interpolate(states: Array, weights: Array, empty: Callable[[], Array]) -> Array:
    """ComfyUI's rule: move states [n, width] from those of the ``empty`` prompt, or towards them.

    Weight 0 is the empty prompt, 1 the prompt itself. compel does the same for weights above 1.
    """
    origin, column = empty(), weights[:, None]
    return np.asarray(np.where(column == 1, states, (states - origin) * column + origin), np.float32)


Weigh = Callable[[Array, Array, Callable[[], Array]], Array]

WEIGHTINGS: Mapping[str, Weigh] = MappingProxyType({"a1111": keep_mean, "comfyui": interpolate})
"""The rules by which weights change hidden states [tokens, width].

Each takes the states, their weights, and a function that returns the states of an empty prompt.
"""
