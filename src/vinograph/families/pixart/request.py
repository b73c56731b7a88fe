"""The arguments that only PixArt takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vinograph.arguments import check_attention_mask, check_plain_callback, check_steps, check_switch, check_tokens
from vinograph.families.latent_request import LatentRequest
from vinograph.request import Array, argument_field


@dataclass(frozen=True, kw_only=True)
class PixArtRequest(LatentRequest):
    """A request with the arguments that only PixArt takes."""

    use_resolution_binning: bool | None = argument_field(
        check_switch,
        "whether to draw at the nearest size that the model was trained on, and resize that",
        metavar="on|off",
    )
    clean_caption: bool | None = argument_field(
        check_switch, "whether to take addresses, markup and the like out of the prompt", metavar="on|off"
    )
    max_sequence_length: int | None = argument_field(check_tokens, "tokens of the prompt that are read")
    prompt_attention_mask: Array | None = argument_field(
        check_attention_mask,
        "for text embeddings, 1 for each token and 0 for padding",
        recorded=False,
        pair="prompt_embeds",
    )
    negative_prompt_attention_mask: Array | None = argument_field(
        check_attention_mask,
        "the same for the embeddings of the negative prompt",
        recorded=False,
        pair="negative_prompt_embeds",
    )
    callback: Any = argument_field(
        check_plain_callback, "called with the step, its timestep, and the latents", recorded=False
    )
    callback_steps: int | None = argument_field(check_steps, "call it once in so many steps", needs=("callback",))
