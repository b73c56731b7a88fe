"""PixArt checkpoints with a short name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vinograph.families.known import Companion, Distillation, FewStep, KnownModel, recognize

# What the authors draw with when the model is distilled as a latent consistency model (arXiv
# 2310.04378).
CONSISTENCY_DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 0.0}

FEW_STEP_MODELS = (
    FewStep(
        title="PixArt-LCM",
        pattern=r"pixart.*\blcm\b|\blcm\b.*pixart",
        defaults={**CONSISTENCY_DEFAULTS, "scheduler": "lcm"},
        steps=(1, 8),
        guidance=1.0,
        classes=("LCMScheduler", "TCDScheduler"),
    ),
    # Its one step begins at timestep 400 and ends at x₀. The checkpoint's own scheduler is DDPM.
    FewStep(
        title="PixArt-DMD",
        pattern=r"pixart.*\bdmd\b",
        defaults={"num_inference_steps": 1, "guidance_scale": 0.0, "scheduler": "ddpm", "timesteps": (400.0,)},
        steps=(1, 1),
        guidance=1.0,
        classes=("DDPMScheduler", "DPMSolverMultistepScheduler", "LCMScheduler"),
    ),
)
"""Distilled models of PixArt, with the settings of their model cards."""


# Measured by python -m benchmarks.fewer_evaluations, on storybook-pixart.
SPEEDS: Mapping[str, Mapping[str, Any]] = {
    "balanced": {"extrapolation_interval": 3},
    "fast": {"extrapolation_interval": 3, "guidance_interval": (0.0, 0.75)},
}
"""What each speed stands for."""


def few_step_of(name: str) -> FewStep | None:
    """What a file, a folder or a repository of that ``name`` was distilled to; None if it isn't known."""
    return recognize(FEW_STEP_MODELS, name)


def distillation_of(name: str, scheduler: Mapping[str, Any]) -> Distillation:
    """Conclude from a checkpoint's ``name`` and scheduler how it was distilled."""
    known = few_step_of(name)
    if known is not None:
        return Distillation.by_name(known, scheduler)
    if scheduler["class"] != "LCMScheduler":
        return Distillation()
    return Distillation(
        CONSISTENCY_DEFAULTS,
        (
            "defaults assumed: 4 steps without guidance, as for PixArt's consistency model, by the LCMScheduler; "
            "otherwise give --steps and --guidance-scale, or set them in the checkpoint's vinograph.json",
        ),
    )


# α's VAE is Stable Diffusion's, Σ's is SDXL's.
_ALPHA_TINY_VAE = Companion("tiny_vae", "madebyollin/taesd", "mit", "decodes at a small part of the full VAE's cost")
_SIGMA_TINY_VAE = Companion("tiny_vae", "madebyollin/taesdxl", "mit", "decodes at a small part of the full VAE's cost")
_LICENCE = "openrail++"
_DOWNLOAD = 21_800_000_000  # of which T5 is 19

KNOWN = (
    KnownModel(
        name="pixart-alpha",
        repository="PixArt-alpha/PixArt-XL-2-1024-MS",
        licence=_LICENCE,
        download=_DOWNLOAD,
        about="1024×1024 and 32 other aspect ratios in 20 guided steps; follows long prompts",
        companions=(_ALPHA_TINY_VAE,),
    ),
    KnownModel(
        name="pixart-alpha-lcm",
        repository="PixArt-alpha/PixArt-LCM-XL-2-1024-MS",
        licence=_LICENCE,
        download=_DOWNLOAD,
        about="the consistency model of PixArt-α: 1024×1024 in 4 steps",
        companions=(_ALPHA_TINY_VAE,),
        defaults=CONSISTENCY_DEFAULTS,
    ),
    KnownModel(
        name="pixart-alpha-512",
        repository="PixArt-alpha/PixArt-XL-2-512x512",
        licence=_LICENCE,
        download=_DOWNLOAD,
        about="PixArt-α at 512×512: a quarter of the work of each step",
        companions=(_ALPHA_TINY_VAE,),
    ),
    KnownModel(
        name="pixart-sigma",
        repository="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        licence=_LICENCE,
        download=_DOWNLOAD,
        about="PixArt-α's successor: prompts of up to 300 tokens, finer detail",
        companions=(_SIGMA_TINY_VAE,),
    ),
)
