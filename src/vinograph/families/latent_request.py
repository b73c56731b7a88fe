"""The arguments of the families that denoise a VAE's latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vinograph.arguments import (
    check_factor,
    check_prompt_weighting,
    check_steps,
    check_strength,
    check_upscaler,
    check_vae_tiling,
)
from vinograph.families.evaluation_request import EvaluationRequest
from vinograph.request import STRENGTHS, argument_field

# A1111's denoising strength is 0.7, which its latent upscaler needs. Lanczos needs less, and less
# keeps more of the first drawing.
HIRES: Mapping[str, Any] = MappingProxyType(
    {"hires": None, "hires_steps": None, "hires_strength": 0.35, "hires_upscaler": "lanczos"}
)
"""The arguments of a second drawing, with their defaults."""
HIRES_OPTIONS: Mapping[str, str] = MappingProxyType({name: name for name in HIRES})
"""The options of the command line, with the argument that each sets."""


@dataclass(frozen=True, kw_only=True)
class LatentRequest(EvaluationRequest):
    """A request to a family that denoises a VAE's latents."""

    prompt_weighting: str | None = argument_field(
        check_prompt_weighting,
        "whose rules read weights such as (word:1.2) in the prompts; none reads them as text",
        metavar="none|a1111|comfyui",
    )
    hires: float | None = argument_field(
        check_factor, "draw, upscale by this factor, and draw from that again; 1 draws once", slider=(1.0, 4.0, 0.25)
    )
    hires_steps: int | None = argument_field(
        check_steps,
        "denoising steps of the second drawing, before its strength; default: the first's",
        needs=("hires",),
    )
    hires_strength: float | None = argument_field(
        check_strength,
        "how far the second drawing leaves the first behind, above 0 and up to 1",
        needs=("hires",),
        slider=STRENGTHS,
    )
    hires_upscaler: str | None = argument_field(
        check_upscaler,
        "what is upscaled: the picture (lanczos), or its latents (latent)",
        needs=("hires",),
        metavar="lanczos|latent",
    )
    vae_tiling: str | None = argument_field(
        check_vae_tiling,
        "whether the VAE computes in tiles, which saves memory; auto: above 1536x1536 pixels",
        metavar="auto|on|off",
    )
