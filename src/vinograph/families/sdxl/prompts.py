"""SDXL's prompts: tokenized for both text encoders, then encoded, in chunks where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vinograph.families.contract import Array, Components, Output
from vinograph.families.prompts import WEIGHTINGS, PromptOptions, WeightedTokens, empty_tokens, weighted_tokens
from vinograph.families.sdxl.config import TEXT_ENCODERS, SDXLConfig
from vinograph.families.shared import note_cut_off, note_dropped
from vinograph.text import Tokens

SDXLComponents = Components[SDXLConfig]

TOKENIZERS = ("tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class PromptEmbeds:
    """Hidden states [prompts, tokens, width] and pooled embeddings [prompts, pooled width]."""

    states: Array
    pooled: Array

    @property
    def length(self) -> int:
        """Tokens of each row."""
        return int(self.states.shape[1])

    def repeated(self, count: int) -> PromptEmbeds:
        """Each prompt's row ``count`` times."""
        return PromptEmbeds(np.repeat(self.states, count, axis=0), np.repeat(self.pooled, count, axis=0))


@dataclass(frozen=True)
class PlainPrompts:
    """Prompts as diffusers reads them: the tokens of both encoders, cut off where they are too many.

    The hidden states come from ``clip_skip`` layers before the last but one.
    """

    tokens: tuple[Tokens, Tokens]
    clip_skip: int

    @property
    def length(self) -> int:
        """Tokens of each row."""
        return int(self.tokens[0].ids.shape[1])

    def encode(self, components: SDXLComponents, _length: int) -> PromptEmbeds:
        """Encode the prompts. Both encoders' states are joined; the pooled text is the second's."""
        encoded = [
            components.sessions[encoder]({"input_ids": tokens.ids})
            for encoder, tokens in zip(TEXT_ENCODERS, self.tokens, strict=True)
        ]
        # The last layer is no output of the encoders, so that -1 is the last but one.
        states = np.concatenate([each["hidden_states"][:, -1 - self.clip_skip] for each in encoded], axis=2)
        return PromptEmbeds(states, encoded[1]["text_embeds"])


@dataclass(frozen=True)
class WeightedPrompts:
    """Prompts with weights or in chunks: for each encoder, the tokens of every prompt."""

    tokens: tuple[tuple[WeightedTokens, ...], tuple[WeightedTokens, ...]]
    weighting: str
    clip_skip: int

    @property
    def length(self) -> int:
        """Tokens of each row, once all are padded to the same number of chunks."""
        return max(each.ids.size for prompts in self.tokens for each in prompts)

    def encode(self, components: SDXLComponents, length: int) -> PromptEmbeds:
        """Encode the prompts, each padded to ``length`` tokens with chunks of an empty prompt.

        The pooled text is that of the first chunk.
        """
        encoders = [
            _Encoder(components, encoder, empty_tokens(components.tokenizers[tokenizer]), self.clip_skip)
            for encoder, tokenizer in zip(TEXT_ENCODERS, TOKENIZERS, strict=True)
        ]
        states = [
            np.stack([encoder.states(each, self.weighting, length) for each in prompts])
            for encoder, prompts in zip(encoders, self.tokens, strict=True)
        ]
        pooled = [encoders[1].pooled(each.ids[0]) for each in self.tokens[1]]
        return PromptEmbeds(np.concatenate(states, axis=2), np.stack(pooled))


@dataclass(frozen=True)
class _Encoder:
    """One text encoder, which reads a single chunk at a time, so that it is compiled for one shape.

    What it computed last is in the components' cache.
    """

    components: SDXLComponents
    name: str
    empty: WeightedTokens
    clip_skip: int

    def states(self, tokens: WeightedTokens, weighting: str, length: int) -> Array:
        """The weighted hidden states [length, width] of one prompt."""
        tokens = tokens.padded(length // self.empty.ids.size, self.empty)
        chunks = [self._weighted(*chunk, weighting) for chunk in zip(tokens.ids, tokens.weights, strict=True)]
        return np.concatenate(chunks)

    def pooled(self, ids: NDArray[np.int64]) -> Array:
        """The pooled embedding [width] of a chunk."""
        return self._output("text_embeds", ids)

    def _weighted(self, ids: NDArray[np.int64], weights: Array, weighting: str) -> Array:
        states = self._output("hidden_states", ids)
        if (weights == 1).all():
            return states
        return WEIGHTINGS[weighting](states, weights, partial(self._output, "hidden_states", self.empty.ids[0]))

    def _output(self, name: str, ids: NDArray[np.int64]) -> Array:
        """An output for one chunk: the hidden states of the layer that is asked for, or the pooled text."""
        key = (self.name, self.clip_skip, ids.tobytes())
        cached = self.components.cache.get((*key, name))
        if cached is not None:
            return cached
        outputs = self.components.sessions[self.name]({"input_ids": ids[None]})
        found: dict[str, Array] = {each: values[0] for each, values in outputs.items()}
        found["hidden_states"] = found["hidden_states"][-1 - self.clip_skip]
        for each, values in found.items():
            self.components.cache.put((*key, each), values.copy())
        return found[name]


def tokenize(
    components: SDXLComponents,
    texts: tuple[Sequence[str], Sequence[str]],
    options: PromptOptions,
    clip_skip: int,
    out: Output,
) -> PlainPrompts | WeightedPrompts:
    """Tokenize each encoder's ``texts``, with a warning of what is cut off.

    Raises:
        RequestError: a weight is out of range, or there are too many chunks.
    """
    tokenizers = [components.tokenizers[name] for name in TOKENIZERS]
    if options.are_plain:
        first, second = (tokenizer(each) for tokenizer, each in zip(tokenizers, texts, strict=True))
        for tokens in (first, second):
            note_dropped(tokens, out)
        return PlainPrompts((first, second), clip_skip)
    one, two = (
        tuple(weighted_tokens(tokenizer, options.read(text), options) for text in each)
        for tokenizer, each in zip(tokenizers, texts, strict=True)
    )
    for prompt in (*one, *two):
        note_cut_off(prompt.dropped, prompt.ids.shape[1], out)
    return WeightedPrompts((one, two), options.weighting, clip_skip)
