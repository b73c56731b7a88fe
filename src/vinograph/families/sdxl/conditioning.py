"""SDXL's conditioning: the text, encoded twice, and sizes (arXiv 2307.01952, section 2.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Output
from vinograph.families.latent import Conditioning
from vinograph.families.prompts import PromptOptions
from vinograph.families.sdxl.config import SDXLConfig
from vinograph.families.sdxl.prompts import PlainPrompts, PromptEmbeds, SDXLComponents, WeightedPrompts, tokenize
from vinograph.families.sdxl.request import SDXLRequest
from vinograph.images import Size

TimeIds = tuple[tuple[int, ...], tuple[int, ...]]
"""Original size, top and left of the crop, and target size, for the prompt and the negative one."""

CALLBACK_TENSORS = ("prompt_embeds", "add_text_embeds", "add_time_ids")
"""The tensors of the conditioning that a callback may ask for, by diffusers' names."""
_MAX_PERIOD = 10_000.0  # of the guidance scale's embedding, as that of a timestep


def callback_tensors(conditioning: Conditioning) -> dict[str, Array]:
    """The tensors that a callback may ask for, by diffusers' names."""
    prompt_embeds, others = conditioning.prompt_embeds, conditioning.others
    return dict(zip(CALLBACK_TENSORS, (prompt_embeds, others["text_embeds"], others["time_ids"]), strict=True))


def with_callback_tensors(conditioning: Conditioning, returned: Mapping[str, Array]) -> Conditioning:
    """The conditioning with what a callback returned in place of some of its tensors."""
    tensors = {**callback_tensors(conditioning), **returned}
    prompt_embeds, text_embeds, time_ids = (tensors[name] for name in CALLBACK_TENSORS)
    others = {**conditioning.others, "text_embeds": text_embeds, "time_ids": time_ids}
    return dataclasses.replace(conditioning, prompt_embeds=prompt_embeds, others=others)


def check_prompts(components: SDXLComponents, request: SDXLRequest, guided: bool) -> None:
    """Check the request's texts and embeddings, as far as that can be done before encoding them.

    Raises:
        RequestError: embeddings of the wrong shape, texts as well as embeddings, or a ``clip_skip``
            beyond the encoders' layers.
    """
    config = components.config
    shape = None
    if request.prompt is not None and request.prompt_embeds is not None:
        raise RequestError("give prompt or prompt_embeds, not both")
    if request.prompt_embeds is not None and request.pooled_prompt_embeds is not None:
        shape = _given(config, request.prompt_embeds, request.pooled_prompt_embeds, "prompt_embeds").states.shape
    elif not 0 <= (request.clip_skip or 0) < config.text_layers:
        raise RequestError(
            f"clip_skip is {request.clip_skip}; this model's text encoders take a whole number "
            f"from 0 to {config.text_layers - 1}"
        )
    if not guided:
        return
    if request.negative_prompt is not None and request.negative_prompt_embeds is not None:
        raise RequestError("give negative_prompt or negative_prompt_embeds, not both")
    negative = None
    if request.negative_prompt_embeds is not None and request.negative_pooled_prompt_embeds is not None:
        states, pooled = request.negative_prompt_embeds, request.negative_pooled_prompt_embeds
        negative = _given(config, states, pooled, "negative_prompt_embeds").states.shape
    elif request.negative_prompt is None and config.force_zeros_for_empty_prompt:
        return
    given, tokens = shape or negative, components.tokenizers["tokenizer"].max_length
    if _options(request).chunks and given is not None and given[1] % tokens == 0:
        tokens = given[1]
    encoded = (request.prompt_count, tokens, config.text_width)
    if (negative or encoded) != (shape or encoded):
        raise _unlike(negative or encoded, shape or encoded)


def _unlike(negative: tuple[int, ...], positive: tuple[int, ...]) -> RequestError:
    return RequestError(
        f"the negative prompt's embeddings have shape {negative}, the prompt's {positive}; give both alike"
    )


@dataclass(frozen=True)
class Prompts:
    """The prompts of ``request``, not encoded yet; under guidance, the negative ones come first.

    None stands for embeddings that are zero. ``time_ids`` are those of the prompt and of the
    negative one.
    """

    request: SDXLRequest
    rows: tuple[PlainPrompts | WeightedPrompts | PromptEmbeds | None, ...]
    time_ids: TimeIds

    @property
    def length(self) -> int:
        """Tokens of each prompt's row in the conditioning."""
        return max(each.length for each in self.rows if each is not None)

    def encode(self, components: SDXLComponents) -> Conditioning:
        """Encode the prompts to the conditioning, one row a picture."""
        request, count = self.request, self.request.image_count
        encoded = [self._encoded(components, each) for each in self.rows]
        rows = [each.repeated(request.num_images_per_prompt or 1) for each in encoded]
        ids = [*reversed(self.time_ids[: len(rows)])]
        others = {
            "text_embeds": np.concatenate([each.pooled for each in rows]),
            "time_ids": np.repeat(np.array(ids, np.float32), count, axis=0),
        }
        if components.config.guides_itself:
            others["timestep_cond"] = _guidance_embedding(components.config.time_cond_width, request, count)
        return Conditioning(np.concatenate([each.states for each in rows]), others)

    def _encoded(
        self, components: SDXLComponents, prompts: PlainPrompts | WeightedPrompts | PromptEmbeds | None
    ) -> PromptEmbeds:
        if prompts is None:
            count, config = self.request.prompt_count, components.config
            shape = (count, self.length, config.text_width)
            return PromptEmbeds(np.zeros(shape, np.float32), np.zeros((count, config.pooled_width), np.float32))
        return prompts if isinstance(prompts, PromptEmbeds) else prompts.encode(components, self.length)


def read_prompts(
    components: SDXLComponents, request: SDXLRequest, time_ids: TimeIds, guided: bool, out: Output
) -> Prompts:
    """Tokenize the texts of a checked request, or take the embeddings that it brings.

    Raises:
        RequestError: a weight is out of range, there are too many chunks, or embeddings of fewer
            tokens than a text has.
    """
    rows = [_conditional(components, request, out)]
    if guided:
        rows.insert(0, _unconditional(components, request, out))
    prompts = Prompts(request, tuple(rows), time_ids)
    for each in rows:
        if isinstance(each, PromptEmbeds) and each.length != prompts.length:
            other = (len(each.states), prompts.length, components.config.text_width)
            raise _unlike(*((each.states.shape, other) if each is rows[0] else (other, each.states.shape)))
    return prompts


def _options(request: SDXLRequest) -> PromptOptions:
    return PromptOptions.of(request.prompt_weighting, request.long_prompt)


def input_shapes(components: SDXLComponents, tokens: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one row of the conditioning's inputs, for prompts of so many ``tokens``."""
    config = components.config
    shapes: dict[str, tuple[int, ...]] = {
        "encoder_hidden_states": (tokens, config.text_width),
        "text_embeds": (config.pooled_width,),
        "time_ids": (6,),
    }
    return {**shapes, "timestep_cond": (config.time_cond_width,)} if config.guides_itself else shapes


def _conditional(
    components: SDXLComponents, request: SDXLRequest, out: Output
) -> PlainPrompts | WeightedPrompts | PromptEmbeds | None:
    if request.prompt_embeds is not None and request.pooled_prompt_embeds is not None:
        return _given(components.config, request.prompt_embeds, request.pooled_prompt_embeds, "prompt_embeds")
    texts = request.prompt or ()
    return _tokenized(components, request, (texts, _second(request.prompt_2, texts)), request.clip_skip or 0, out)


def _unconditional(
    components: SDXLComponents, request: SDXLRequest, out: Output
) -> PlainPrompts | WeightedPrompts | PromptEmbeds | None:
    if request.negative_prompt_embeds is not None and request.negative_pooled_prompt_embeds is not None:
        states, pooled = request.negative_prompt_embeds, request.negative_pooled_prompt_embeds
        return _given(components.config, states, pooled, "negative_prompt_embeds")
    if request.negative_prompt is None and components.config.force_zeros_for_empty_prompt:
        return None
    texts = request.negative_prompt or ("",) * request.prompt_count
    # As in diffusers, clip_skip is the prompt's alone.
    return _tokenized(components, request, (texts, _second(request.negative_prompt_2, texts)), 0, out)


def _tokenized(
    components: SDXLComponents,
    request: SDXLRequest,
    texts: tuple[Sequence[str], Sequence[str]],
    clip_skip: int,
    out: Output,
) -> PlainPrompts | WeightedPrompts:
    options = _options(request)
    options.note_unread([*texts[0], *texts[1]], out)
    return tokenize(components, texts, options, clip_skip, out)


def _second(texts: tuple[str, ...] | None, first: Sequence[str]) -> Sequence[str]:
    """The texts for the second encoder: those of the first, where there are none of its own."""
    return texts if texts is not None and any(texts) else first


def _given(config: SDXLConfig, states: Array, pooled: Array, name: str) -> PromptEmbeds:
    if states.shape[2] != config.text_width or pooled.shape != (len(states), config.pooled_width):
        raise RequestError(
            f"{name} and its pooled embeddings have shapes {states.shape} and {pooled.shape}; "
            f"give [prompts, tokens, {config.text_width}] and [prompts, {config.pooled_width}]"
        )
    return PromptEmbeds(states, pooled)


def time_ids_of(request: SDXLRequest, size: Size, out: Output) -> TimeIds:
    """The six numbers for the prompt, and those for the negative one, for pictures of ``size``.

    diffusers reads the negative ones in two ways. In text to image, both sizes count or none of the
    three does. From a picture, each size counts alone, and the crop is the positive one's. So do
    we, and say what was ignored.
    """
    original, target = request.original_size or size, request.target_size or size
    crop = request.crops_coords_top_left or (0, 0)
    positive = (*original, *crop, *target)
    negative_original, negative_target = request.negative_original_size, request.negative_target_size
    negative_crop = request.negative_crops_coords_top_left or (0, 0)
    if request.image is not None:
        if negative_crop not in ((0, 0), crop):
            out.warnings.append(
                "negative_crops_coords_top_left was ignored: from an image, the crop is the positive one"
            )
        return positive, (*(negative_original or original), *crop, *(negative_target or target))
    if negative_original is None or negative_target is None:
        if negative_original or negative_target or negative_crop != (0, 0):
            raise RequestError(
                "give both negative_original_size and negative_target_size, or none of the negative sizes"
            )
        return positive, positive
    return positive, (*negative_original, *negative_crop, *negative_target)


def _guidance_embedding(width: int, request: SDXLRequest, count: int) -> Array:
    """Sines and cosines [count, width] of the guidance scale (Meng et al., arXiv 2210.03142)."""
    half = width // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -np.float32(math.log(_MAX_PERIOD) / (half - 1)))
    angles = np.float32((request.guidance_scale or 0.0) - 1) * np.float32(1000) * frequencies
    row = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2, np.float32)])
    return np.repeat(row[None].astype(np.float32), count, axis=0)
