"""SDXL checkpoints with a short name, and how to recognize distilled ones.

A checkpoint may say itself that it was distilled. A scheduler alone is no evidence, since people
save the one that they like to draw with. A checkpoint counts as distilled where its network, its
size or its name says so, too. What was assumed is noted in the bundle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vinograph.families.known import Companion, Distillation, FewStep, KnownModel, recognize

DEFAULTS = ("num_inference_steps", "guidance_scale")
# SDXL-Turbo (arXiv 2311.17042) draws in one step, without guidance.
_TURBO_DEFAULTS = {"num_inference_steps": 1, "guidance_scale": 0.0}
_TINY_VAE = Companion("tiny_vae", "madebyollin/taesdxl", "mit", "decodes at a small part of the full VAE's cost")

# Measured by python -m benchmarks.fewer_evaluations, on storybook-sdxl.
SPEEDS: Mapping[str, Mapping[str, Any]] = {
    "balanced": {"extrapolation_interval": 2},
    "fast": {"extrapolation_interval": 3},
}
"""What each speed stands for."""

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

_EULER, _DDIM, _LCM, _TCD = "EulerDiscreteScheduler", "DDIMScheduler", "LCMScheduler", "TCDScheduler"
_CONSISTENCY_CLASSES = (_LCM, _TCD)
_TURBO = "SDXL-Turbo"  # a checkpoint with a scheduler of its own has to have Turbo's, too
_LCM_UNET = "the latent consistency model of SDXL"  # its UNet takes the guidance scale as an input
_DISTILLED = re.compile(r"lightning|turbo|hyper-?sd|dmd|lcm", re.IGNORECASE)


def _lightning(steps: int) -> FewStep:
    """SDXL-Lightning (Lin et al., arXiv 2402.13929), as UNet and as LoRA."""
    return FewStep(
        title=f"SDXL-Lightning with {steps} steps",
        pattern=rf"lightning.*\b{steps}-?steps?\b",
        defaults={"num_inference_steps": steps, "guidance_scale": 0.0, "scheduler": "euler trailing"},
        steps=(steps, steps),
        guidance=1.0,
        classes=(_EULER, _DDIM),
        spacing="trailing",
    )


def _hyper(steps: int) -> FewStep:
    """Hyper-SD's LoRA for a number of steps (Ren et al., arXiv 2404.13686)."""
    return FewStep(
        title=f"Hyper-SDXL with {steps} steps",
        pattern=rf"hyper-?sd-?xl-{steps}-?steps?-lora\b",
        defaults={"num_inference_steps": steps, "guidance_scale": 0.0, "scheduler": "ddim trailing"},
        steps=(steps, steps),
        guidance=1.0,
        classes=(_DDIM, _EULER, _TCD),
        spacing="trailing",
    )


def _hyper_guided(steps: int) -> FewStep:
    """Hyper-SD's LoRA that keeps guidance."""
    return FewStep(
        title=f"Hyper-SDXL with {steps} steps and guidance",
        pattern=rf"hyper-?sd-?xl-{steps}-?steps?-cfg",
        defaults={"num_inference_steps": steps, "guidance_scale": 5.0, "scheduler": "ddim trailing"},
        steps=(steps, steps),
        guidance=8.0,
        classes=(_DDIM, _EULER, _TCD),
        spacing="trailing",
    )


def _distribution_matching(steps: int, timesteps: tuple[float, ...]) -> FewStep:
    """DMD2 (Yin et al., arXiv 2405.14867), as UNet and as LoRA, at the timesteps that it was trained at."""
    return FewStep(
        title=f"DMD2 with {steps} {'step' if steps == 1 else 'steps'}",
        pattern=rf"dmd-?2.*\b{steps}-?steps?\b",
        defaults={"num_inference_steps": steps, "guidance_scale": 0.0, "scheduler": "lcm", "timesteps": timesteps},
        steps=(steps, steps),
        guidance=1.0,
        classes=_CONSISTENCY_CLASSES,
    )


FEW_STEP_MODELS = (
    FewStep(
        title="SDXL-Lightning with 1 step",
        pattern=r"lightning.*\b1-?step\b",
        defaults={
            "num_inference_steps": 1,
            "guidance_scale": 0.0,
            "scheduler": {"_class_name": _EULER, "timestep_spacing": "trailing", "prediction_type": "sample"},
        },
        steps=(1, 1),
        guidance=1.0,
        classes=(_EULER, _DDIM),
        spacing="trailing",
    ),
    *(_lightning(steps) for steps in (2, 4, 8)),
    # One LoRA for one to eight steps; one UNet for one, which starts at timestep 800.
    FewStep(
        title="Hyper-SDXL with 1 to 8 steps",
        pattern=r"hyper-?sd-?xl-1-?step-lora\b",
        defaults={"num_inference_steps": 1, "guidance_scale": 0.0, "scheduler": "tcd", "eta": 1.0},
        steps=(1, 8),
        guidance=1.0,
        classes=_CONSISTENCY_CLASSES,
    ),
    FewStep(
        title="Hyper-SDXL's UNet for 1 step",
        pattern=r"hyper-?sd-?xl-1-?step-unet",
        defaults={"num_inference_steps": 1, "guidance_scale": 0.0, "scheduler": "lcm", "timesteps": (800.0,)},
        steps=(1, 1),
        guidance=1.0,
        classes=_CONSISTENCY_CLASSES,
    ),
    *(_hyper(steps) for steps in (2, 4, 8)),
    *(_hyper_guided(steps) for steps in (8, 12)),
    _distribution_matching(4, (999.0, 749.0, 499.0, 249.0)),
    _distribution_matching(1, (399.0,)),
    FewStep(
        title="LCM-LoRA",  # arXiv 2311.05556
        pattern=r"\blcm-?lora\b|\blora-?lcm\b|\blcm.*\blora\b",
        defaults={"num_inference_steps": 4, "guidance_scale": 0.0, "scheduler": "lcm"},
        steps=(2, 8),
        guidance=2.0,
        classes=_CONSISTENCY_CLASSES,
    ),
    FewStep(
        title=_LCM_UNET,  # arXiv 2310.04378
        pattern=r"\blcm-(sd-?xl|ssd-?1b)\b",
        defaults={"num_inference_steps": 4, "guidance_scale": 8.0, "scheduler": "lcm"},
        steps=(2, 8),
        guidance=100.0,
        classes=_CONSISTENCY_CLASSES,
    ),
    FewStep(
        title=_TURBO,
        pattern=r"^(stabilityai-)?sd-?xl-turbo(-1-0)?(-fp16)?$",
        defaults={**_TURBO_DEFAULTS, "scheduler": "euler a trailing"},
        steps=(1, 4),
        guidance=1.0,
        classes=("EulerAncestralDiscreteScheduler", _EULER, *_CONSISTENCY_CLASSES),
    ),
)
"""Distilled models and adapters of SDXL, with the settings of their model cards.

Those of several names stand in the order in which a name is compared with them.
"""


_BY_TITLE = {each.title: each for each in FEW_STEP_MODELS}


def few_step_of(name: str) -> FewStep | None:
    """What a file, a folder or a repository of that ``name`` was distilled to; None if it isn't known."""
    return recognize(FEW_STEP_MODELS, name)


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


def distillation_of(
    name: str, index: Mapping[str, Any], scheduler: Mapping[str, Any], sample_size: int, takes_guidance: bool
) -> Distillation:
    """Conclude how a checkpoint was distilled from its ``name``, index, scheduler and UNet.

    ``sample_size`` is the side of the UNet's latents. ``takes_guidance`` says whether the UNet
    takes the guidance scale as an input.
    """
    known = few_step_of(name)
    if known is not None and known.title != _TURBO and (known.title != _LCM_UNET or takes_guidance):
        return Distillation.by_name(known, scheduler)
    if scheduler["class"] == "LCMScheduler":
        return _consistency(takes_guidance)
    if any(scheduler[key] != value for key, value in _TURBO_SCHEDULER.items() if key in scheduler):
        return _unknown(name)
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
    return Distillation(_TURBO_DEFAULTS, (note,), _BY_TITLE[_TURBO])


def _unknown(name: str) -> Distillation:
    """No defaults; with a note where the name says no more than that the model was distilled."""
    word = _DISTILLED.search(name.rpartition("/")[2])
    if word is None:
        return Distillation()
    return Distillation(
        notes=(
            f"the name says that the model was distilled ({word[0]}), but not to how many steps, so that it has SDXL's "
            "many steps with guidance. Give --steps, --guidance-scale and --scheduler as its card says, or set them in "
            "the checkpoint's vinograph.json",
        )
    )


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
    title = _LCM_UNET if takes_guidance else "LCM-LoRA"
    return Distillation({"num_inference_steps": _CONSISTENCY_STEPS, "guidance_scale": scale}, (note,), _BY_TITLE[title])
