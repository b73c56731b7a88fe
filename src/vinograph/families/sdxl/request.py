"""The arguments that only SDXL takes."""

from __future__ import annotations

from dataclasses import dataclass

from vinograph.arguments import (
    check_amount,
    check_layers,
    check_long_prompt,
    check_pooled,
    check_share,
    check_texts,
    check_two_numbers,
)
from vinograph.families.borders import check_borders
from vinograph.families.latent_request import LatentRequest
from vinograph.request import Array, argument_field


@dataclass(frozen=True, kw_only=True)
class SDXLRequest(LatentRequest):
    """A request with the arguments that only SDXL takes."""

    prompt_2: tuple[str, ...] | None = argument_field(
        check_texts, "the prompt for the second text encoder; default: the same", per_prompt=True, needs=("prompt",)
    )
    negative_prompt_2: tuple[str, ...] | None = argument_field(
        check_texts,
        "the negative prompt for the second text encoder; default: the same",
        per_prompt=True,
        needs=("negative_prompt",),
    )
    long_prompt: str | None = argument_field(
        check_long_prompt,
        "what becomes of text beyond one chunk of tokens: it is cut off, or read in further chunks",
        metavar="truncate|chunks",
    )
    extend: tuple[int, int, int, int] | None = argument_field(
        check_borders,
        "outpainting: pixels to add to the image at its left, top, right and bottom; one number: at each side",
        needs=("image",),
        metavar="LEFT,TOP,RIGHT,BOTTOM",
    )
    guidance_rescale: float | None = argument_field(
        check_amount, "how far guidance keeps the contrast of what it guides, up to 1"
    )
    denoising_start: float | None = argument_field(
        check_share,
        "the share of denoising that the image has behind it",
        needs=("image",),
        replaces=("strength",),
    )
    denoising_end: float | None = argument_field(check_share, "the share of denoising after which to stop")
    clip_skip: int | None = argument_field(check_layers, "layers of the text encoders to leave out at the end")
    original_size: tuple[int, int] | None = argument_field(
        check_two_numbers, "size conditioning: height and width of the picture before it was cropped"
    )
    crops_coords_top_left: tuple[int, int] | None = argument_field(
        check_two_numbers, "size conditioning: where the crop begins, from the top and from the left"
    )
    target_size: tuple[int, int] | None = argument_field(
        check_two_numbers, "size conditioning: height and width of the picture to draw"
    )
    negative_original_size: tuple[int, int] | None = argument_field(
        check_two_numbers, "original_size to guide away from"
    )
    negative_crops_coords_top_left: tuple[int, int] | None = argument_field(
        check_two_numbers, "crops_coords_top_left to guide away from"
    )
    negative_target_size: tuple[int, int] | None = argument_field(check_two_numbers, "target_size to guide away from")
    pooled_prompt_embeds: Array | None = argument_field(
        check_pooled, "pooled text embeddings, one for each prompt", recorded=False, pair="prompt_embeds"
    )
    negative_pooled_prompt_embeds: Array | None = argument_field(
        check_pooled,
        "pooled text embeddings of the negative prompt",
        recorded=False,
        pair="negative_prompt_embeds",
    )

    @property
    def step_share(self) -> float | None:
        """The share of the steps that is done from a picture: what ``strength`` or the span of denoising says."""
        share = self.strength if self.denoising_start is None else 1 - self.denoising_start
        if share is None or self.denoising_end is None:
            return share
        return share - (1 - self.denoising_end)
