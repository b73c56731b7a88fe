"""What A1111's API lists: models, samplers, schedules, adapters and so on, in its shapes.

No list holds a path of the server's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vinograph import a1111, resources
from vinograph.families import registry
from vinograph.families.autoencoder import vae_names
from vinograph.schedulers import SCHEDULERS, SPACINGS
from vinograph.serve.a1111_drawing import AUTOMATIC
from vinograph.serve.contract import AdapterInfo, ModelInfo

_CALL = "generate"
_LATENT = "latent"
_UPSCALED_BY = 4  # A1111's default of an upscaler's scale, for those that have none of their own


def models(found: Sequence[ModelInfo]) -> list[dict[str, Any]]:
    """``sd-models``: the title is the name, since there is no hash of all weights to tell them apart."""
    return [
        {"title": each.name, "model_name": each.name, "hash": None, "sha256": None, "filename": each.name}
        | {"config": None}
        for each in found
    ]


def samplers(model: ModelInfo) -> list[dict[str, Any]]:
    """``samplers`` that the model can be drawn with."""
    known = _schedulers_of(model)
    return [
        {"name": each.webui, "aliases": [*dict.fromkeys((each.name, *each.comfyui))], "options": {}}
        for each in SCHEDULERS
        if each.name in known
    ]


def schedulers(model: ModelInfo) -> list[dict[str, Any]]:
    """``schedulers``, which are spacings of a sampler's steps, that the model can be drawn with."""
    known = _schedulers_of(model)
    return [
        {
            "name": each.name.replace(" ", "_"),
            "label": each.name.title(),
            "aliases": list(each.aliases),
            "default_rho": -1,
            "need_inner_model": False,
        }
        for each in sorted(SPACINGS, key=lambda each: each.name != AUTOMATIC)
        if each.name == AUTOMATIC or any(name.endswith(f" {each.name}") for name in known)
    ]


def _schedulers_of(model: ModelInfo) -> tuple[str, ...]:
    """The names of the schedulers that the model's family offers."""
    return registry.family(model.family).calls[_CALL].choices.get("scheduler", ())


def vaes(model: ModelInfo) -> list[dict[str, str]]:
    """``sd-vae`` and Forge's ``sd-modules``: the VAEs that the model has."""
    names = vae_names(model.components) if "vae" in model.takes else []
    return [{"model_name": name, "filename": name} for name in names]


def loras(found: Sequence[AdapterInfo]) -> list[dict[str, Any]]:
    """``loras``: adapters, by the names that a prompt's tags have for them."""
    return [
        {"name": each.name, "alias": each.name, "path": f"{each.name}{each.path.suffix}", "metadata": {}}
        for each in found
    ]


def upscalers(model: ModelInfo) -> list[dict[str, Any]]:
    """``upscalers`` for ``hr_upscaler``, besides those of latents."""
    named = [name for ours, name in a1111.UPSCALERS.items() if ours != _LATENT and "hires" in model.takes]
    return [
        {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": _UPSCALED_BY}
        for name in ("None", *named)
    ]


def latent_upscale_modes(model: ModelInfo) -> list[dict[str, str]]:
    """``latent-upscale-modes`` for ``hr_upscaler``."""
    return [{"name": a1111.UPSCALERS[_LATENT]}] if "hires" in model.takes else []


def memory() -> dict[str, Any]:
    """``memory`` of the machine, in bytes."""
    total, free = resources.memory_installed(), resources.memory_available()
    return {
        "ram": {"free": free, "used": total - free, "total": total},
        "cuda": {"error": "drawn with OpenVINO, without CUDA"},
    }
