"""PixArt's conditioning: T5's hidden states (arXiv 1910.10683), and the picture's size.

Padding is masked in T5 and in the transformer alike, so that leaving it out changes nothing. T5
reads the real tokens alone, padded to one of a few lengths, for each of which its graph is compiled
once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Components, Output
from vinograph.families.latent import Conditioning
from vinograph.families.pixart.captions import cleaned_or_plain, plain
from vinograph.families.pixart.config import PixArtConfig
from vinograph.families.pixart.request import PixArtRequest
from vinograph.families.prompts import NO_WEIGHTS, WEIGHTINGS, PromptOptions, weighted_tokens
from vinograph.families.shared import note_cut_off, note_dropped
from vinograph.images import Size
from vinograph.prompt_syntax import Segments

PixArtComponents = Components[PixArtConfig]

_LENGTHS = (16, 32, 64, 128)  # tokens; longer prompts are padded to a multiple of the last


@dataclass(frozen=True)
class PromptEmbeds:
    """Hidden states [n, tokens, width], and a mask [n, tokens] that is 1 where there is a token."""

    states: Array
    mask: NDArray[np.int64]

    @property
    def length(self) -> int:
        """Tokens of each row, padding included."""
        return int(self.states.shape[1])

    def repeated(self, count: int) -> PromptEmbeds:
        """Each row ``count`` times."""
        return PromptEmbeds(np.repeat(self.states, count, axis=0), np.repeat(self.mask, count, axis=0))

    def padded(self, length: int) -> PromptEmbeds:
        """Each row with padding up to ``length`` tokens."""
        more = length - self.length
        return PromptEmbeds(np.pad(self.states, ((0, 0), (0, more), (0, 0))), np.pad(self.mask, ((0, 0), (0, more))))


@dataclass(frozen=True)
class TokenIds:
    """The token ids [n] of each prompt, without padding, and their weights [n].

    ``weighting`` says whose rule applies the weights.
    """

    rows: tuple[NDArray[np.int64], ...]
    weights: tuple[Array, ...] | None = None
    weighting: str = NO_WEIGHTS

    @property
    def length(self) -> int:
        """Tokens of each row once they are all padded to one length."""
        return _padded_length(max(len(each) for each in self.rows))


@dataclass(frozen=True)
class Prompts:
    """The prompts of ``request``, not encoded yet; under guidance, the negative ones come first."""

    request: PixArtRequest
    rows: tuple[TokenIds | PromptEmbeds, ...]

    @property
    def length(self) -> int:
        """Tokens of each prompt's row in the conditioning, padding included."""
        return max(each.length for each in self.rows)

    def encode(self, components: PixArtComponents, size: Size) -> Conditioning:
        """Encode the prompts to the conditioning of pictures of ``size``, one row a picture."""
        encoded = [_encode(components, each) if isinstance(each, TokenIds) else each for each in self.rows]
        rows = [each.padded(self.length).repeated(self.request.num_images_per_prompt or 1) for each in encoded]
        states = np.concatenate([each.states for each in rows])
        others: dict[str, NDArray[Any]] = {"encoder_attention_mask": np.concatenate([each.mask for each in rows])}
        if components.config.size_conditions:
            others["resolution"] = np.tile(np.array([size], np.float32), (len(states), 1))
            others["aspect_ratio"] = np.full((len(states), 1), size.height / size.width, np.float32)
        return Conditioning(states, others)


def check_prompts(components: PixArtComponents, request: PixArtRequest, guided: bool) -> None:
    """Check the embeddings that ``request`` brings.

    Raises:
        RequestError: embeddings or masks of the wrong shape, or texts as well as embeddings.
    """
    if request.prompt is not None and request.prompt_embeds is not None:
        raise RequestError("give prompt or prompt_embeds, not both")
    if request.prompt_embeds is not None and request.prompt_attention_mask is not None:
        _given(components.config, request.prompt_embeds, request.prompt_attention_mask, "prompt_embeds")
    states, mask = request.negative_prompt_embeds, request.negative_prompt_attention_mask
    if not guided or states is None or mask is None:
        return
    if request.negative_prompt is not None:
        raise RequestError("give negative_prompt or negative_prompt_embeds, not both")
    negative = _given(components.config, states, mask, "negative_prompt_embeds")
    if len(negative.states) != request.prompt_count:
        raise RequestError(
            f"negative_prompt_embeds are of {len(negative.states)} prompts, and there are {request.prompt_count}; "
            "give one row for each"
        )


def read_prompts(components: PixArtComponents, request: PixArtRequest, guided: bool, out: Output) -> Prompts:
    """Tokenize the texts of a checked request, or take the embeddings that it brings."""
    limit = request.max_sequence_length or components.config.text_length
    rows = [_conditional(components, request, limit, out)]
    if guided:
        rows.insert(0, _unconditional(components, request, rows[0], limit, out))
    return Prompts(request, tuple(rows))


def input_shapes(components: PixArtComponents, tokens: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one row of the conditioning's inputs, for prompts of so many ``tokens``."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoder_hidden_states": (tokens, components.config.text_width),
        "encoder_attention_mask": (tokens,),
    }
    return {**shapes, "resolution": (2,), "aspect_ratio": (1,)} if components.config.size_conditions else shapes


def _conditional(
    components: PixArtComponents, request: PixArtRequest, limit: int, out: Output
) -> TokenIds | PromptEmbeds:
    if request.prompt_embeds is not None and request.prompt_attention_mask is not None:
        return _given(components.config, request.prompt_embeds, request.prompt_attention_mask, "prompt_embeds")
    return _tokenize(components, request, request.prompt or (), limit, out)


def _unconditional(
    components: PixArtComponents, request: PixArtRequest, text: TokenIds | PromptEmbeds, limit: int, out: Output
) -> TokenIds | PromptEmbeds:
    states, mask = request.negative_prompt_embeds, request.negative_prompt_attention_mask
    if states is not None and mask is not None:
        return _given(components.config, states, mask, "negative_prompt_embeds")
    limit = text.length if isinstance(text, PromptEmbeds) else limit
    return _tokenize(components, request, request.negative_prompt or ("",) * request.prompt_count, limit, out)


def _given(config: PixArtConfig, states: Array, mask: Array, name: str) -> PromptEmbeds:
    if states.shape[2] != config.text_width or mask.shape != states.shape[:2]:
        raise RequestError(
            f"{name} and its attention mask have shapes {states.shape} and {mask.shape}; "
            f"give [prompts, tokens, {config.text_width}] and [prompts, tokens]"
        )
    return PromptEmbeds(states, mask.astype(np.int64))


def _tokenize(
    components: PixArtComponents, request: PixArtRequest, prompts: Sequence[str], limit: int, out: Output
) -> TokenIds:
    options = PromptOptions.of(request.prompt_weighting)
    options.note_unread(prompts, out)
    tokenizer = components.tokenizers["tokenizer"]
    if options.are_plain:
        tokens = tokenizer(_captions(request, prompts, out), limit)
        ids = note_dropped(tokens, out)
        return TokenIds(tuple(row[mask == 1] for row, mask in zip(ids, tokens.mask, strict=True)))
    segments = [_read(request, options, each, out) for each in prompts]
    weighted = [weighted_tokens(tokenizer, each, options, limit) for each in segments]
    for each in weighted:
        note_cut_off(each.dropped, limit, out)
    return TokenIds(
        tuple(each.ids[0, : each.counts[0]] for each in weighted),
        tuple(each.weights[0, : each.counts[0]] for each in weighted),
        options.weighting,
    )


def _captions(request: PixArtRequest, prompts: Sequence[str], out: Output) -> tuple[str, ...]:
    """The prompts as the text encoder reads them: cleaned if the request says so."""
    if not request.clean_caption:
        return tuple(plain(each) for each in prompts)
    texts, warning = cleaned_or_plain(prompts)
    if warning is not None and warning not in out.warnings:
        out.warnings.append(warning)
    return texts


def _read(request: PixArtRequest, options: PromptOptions, prompt: str, out: Output) -> Segments:
    """The segments of a prompt. Each is cleaned alone, since cleaning takes out all brackets."""
    segments = options.read(prompt)
    texts = _captions(request, [each.text for each in segments], out)
    return tuple(dataclasses.replace(each, text=text) for each, text in zip(segments, texts, strict=True))


def _encode(components: PixArtComponents, ids: TokenIds) -> PromptEmbeds:
    states = [_hidden_states(components, each, ids.length) for each in ids.rows]
    if ids.weights is not None:
        states = [_weigh(components, ids, *each) for each in zip(states, ids.weights, strict=True)]
    rows = [PromptEmbeds(each[None], np.ones((1, len(each)), np.int64)).padded(ids.length) for each in states]
    return PromptEmbeds(np.concatenate([each.states for each in rows]), np.concatenate([each.mask for each in rows]))


def _weigh(components: PixArtComponents, ids: TokenIds, states: Array, weights: Array) -> Array:
    """Apply weights [n] to the hidden states [n, width] of one prompt.

    The empty prompt is an end token and padding, which the end token doesn't see.
    """
    if (weights == 1).all():
        return states

    def empty() -> Array:
        _, end = components.tokenizers["tokenizer"].marks
        return _hidden_states(components, np.array(end, np.int64), ids.length, len(states))

    return WEIGHTINGS[ids.weighting](states, weights, empty)


def _hidden_states(
    components: PixArtComponents, ids: NDArray[np.int64], length: int, count: int | None = None
) -> Array:
    """T5's last hidden states [count, width] of one prompt, from the cache if they are there.

    The prompt is padded to ``length``. ``count`` may include padding, and excludes it by default.
    """
    count = count or len(ids)
    key = ("text_encoder", count, ids.tobytes())
    cached = components.cache.get(key)
    if cached is not None:
        return cached
    padded = np.full((1, length), components.tokenizers["tokenizer"].pad_id, np.int64)
    mask = np.zeros((1, length), np.int64)
    padded[0, : len(ids)], mask[0, : len(ids)] = ids, 1
    states = components.sessions["text_encoder"]({"input_ids": padded, "attention_mask": mask})["hidden_states"]
    return components.cache.put(key, states[0, :count].copy())


def _padded_length(tokens: int) -> int:
    """The length that so many tokens are padded to."""
    return next((each for each in _LENGTHS if tokens <= each), -(-tokens // _LENGTHS[-1]) * _LENGTHS[-1])
