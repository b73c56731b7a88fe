"""SDXL checkpoints with a short name, and how to recognize distilled ones.

A checkpoint may say itself that it was distilled. A scheduler alone is no evidence, since people
save the one that they like to draw with. A checkpoint counts as distilled where its network, its
size or its name says so, too. What was assumed is noted in the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vinograph.families.known import Companion, KnownModel

DEFAULTS = ("num_inference_steps", "guidance_scale")
# SDXL-Turbo (arXiv 2311.17042) draws in one step, without guidance.
_TURBO_DEFAULTS = {"num_inference_steps": 1, "guidance_scale": 0.0}
_TINY_VAE = Companion("tiny_vae", "madebyollin/taesdxl", "mit", "decodes at a small part of the full VAE's cost")

KNOWN = (
    KnownModel(
        name="sdxl-turbo",
        repository="stabilityai/sdxl-turbo",
        licence="sai-nc-community",
        download=6_940_000_000,
        about="512×512 in a single step: the quickest to draw",
        companions=(_TINY_VAE,),
        defaults=_TURBO_DEFAULTS,
    ),
    KnownModel(
        name="sdxl-base",
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        licence="openrail++",
        download=6_940_000_000,
        about="1024×1024 in 50 guided steps: what most tuned SDXL models start from",
        companions=(_TINY_VAE,),
    ),
)

# SDXL-Turbo predicts the noise, as SDXL does.
_TURBO_SCHEDULER = {
    "class": "EulerAncestralDiscreteScheduler",
    "timestep_spacing": "trailing",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
_TURBO_SIZE = 64  # of its latents; SDXL and what is tuned from it have 128
# Latent consistency models (arXiv 2310.04378) draw in a few steps. They take the guidance scale as
# an input, or need none (LCM-LoRA, arXiv 2311.05556, fused into the checkpoint).
_CONSISTENCY_STEPS = 4
_CONSISTENCY_SCALES = {True: 8.0, False: 0.0}
_OR = "otherwise give --steps and --guidance-scale, or set them in the checkpoint's vinograph.json"


@dataclass(frozen=True)
class Distillation:
    """The ``defaults`` of a distilled model, and ``notes`` of what they were concluded from."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def distillation_of(
    name: str, index: Mapping[str, Any], scheduler: Mapping[str, Any], sample_size: int, takes_guidance: bool
) -> Distillation:
    """Conclude how a checkpoint was distilled from its ``name``, index, scheduler and UNet.

    ``sample_size`` is the side of the UNet's latents. ``takes_guidance`` says whether the UNet
    takes the guidance scale as an input.
    """
    if scheduler["class"] == "LCMScheduler":
        return _consistency(takes_guidance)
    if any(scheduler[key] != value for key, value in _TURBO_SCHEDULER.items() if key in scheduler):
        return Distillation()
    evidence = _turbo_evidence(name, index, sample_size)
    if evidence is None:
        return Distillation(
            notes=(
                "defaults assumed: many steps with guidance, as for SDXL. The scheduler is such as SDXL-Turbo's, but "
                "neither the size nor the name is. If the model is distilled, give --steps 1 --guidance-scale 0, or "
                "set them in the checkpoint's vinograph.json",
            )
        )
    note = f"defaults assumed: 1 step without guidance, as for SDXL-Turbo, by the scheduler and {evidence}; {_OR}"
    return Distillation(_TURBO_DEFAULTS, (note,))


def _turbo_evidence(name: str, index: Mapping[str, Any], sample_size: int) -> str | None:
    if sample_size == _TURBO_SIZE:
        return "the UNet's size of 512 pixels"
    for origin in (name, index.get("_name_or_path")):
        if isinstance(origin, str) and "turbo" in origin.casefold():
            return "the name"
    return None


def _consistency(takes_guidance: bool) -> Distillation:
    scale = _CONSISTENCY_SCALES[takes_guidance]
    note = (
        f"defaults assumed: {_CONSISTENCY_STEPS} steps at guidance scale {scale:g}, as for a latent consistency model, "
        f"by the LCMScheduler and a UNet that takes {'the' if takes_guidance else 'no'} guidance scale; {_OR}"
    )
    return Distillation({"num_inference_steps": _CONSISTENCY_STEPS, "guidance_scale": scale}, (note,))
