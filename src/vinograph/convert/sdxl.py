"""SDXL's converter: what is read from a checkpoint, and what the bundle says.

Everything is checked before anything is written: classes, configurations, and every tensor's name, type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from vinograph import schedulers
from vinograph.bundle import Bundle
from vinograph.convert import sdxl_layout, tokenizer
from vinograph.convert.assemble import Plan, TokenizerPlan, assemble
from vinograph.convert.checkpoint import Place, fetch_parts, licence_of
from vinograph.convert.sdxl_layout import EXPORTED_FILE, EXPORTED_WEIGHTS
from vinograph.convert.settings import Settings, licence_file
from vinograph.families.sdxl import FAMILY
from vinograph.manifest import Manifest, Source

if TYPE_CHECKING:
    from vinograph.convert import Job
    from vinograph.convert.sdxl_config import SdxlConfig
    from vinograph.convert.sdxl_exported import ExportedModels
    from vinograph.convert.sdxl_models import Models

PIPELINES = sdxl_layout.PIPELINES
OPTIONS = ("tiny_vae",)
WEIGHTS = ("f16", "f32")

_LARGEST = 2048
_SMALLEST_GRID = 8
# SDXL-Turbo (arXiv 2311.17042) is told by its scheduler; it draws in one step, without guidance.
_TURBO = {"class": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
_TURBO_DEFAULTS = {"num_inference_steps": 1, "guidance_scale": 0.0}
# Latent consistency models (arXiv 2310.04378) draw in a few steps; they are told the guidance scale, or (LCM-LoRA,
# arXiv 2311.05556, fused into the checkpoint) need none.
_CONSISTENCY_STEPS = 4
_CONSISTENCY_SCALES = {True: 8.0, False: 0.0}


def convert(job: Job) -> Bundle:
    """Convert an SDXL checkpoint. Raises what :func:`vinograph.convert.convert` says."""
    places = sdxl_layout.find(job.checkpoint, job.index, job.options.get("tiny_vae"))
    scheduler = schedulers.settings(places["scheduler"].config("scheduler_config.json"))
    files = fetch_parts(places, partial(_files_of, sdxl_layout.is_exported(places)))
    models = _check(places)
    config = models.config
    lengths = {
        "tokenizer": config.text_encoder.max_position_embeddings,
        "tokenizer_2": config.text_encoder_2.max_position_embeddings,
    }
    plan = Plan(
        weights=models.weights(halve=job.weights == "f16"),
        tokenizers={name: TokenizerPlan(places[name].directory, length) for name, length in lengths.items()},
        manifest=_manifest(job, places, models, scheduler),
        files=tuple(files),
        licence_file=licence_file(job.checkpoint),
    )
    return assemble(plan, job)


def _check(places: Mapping[str, Place]) -> Models | ExportedModels:
    if sdxl_layout.is_exported(places):
        from vinograph.convert.sdxl_exported import ExportedModels

        return ExportedModels.check(places)
    from vinograph.convert.sdxl_models import Models

    return Models.check(places)


def _files_of(exported: bool, part: str, place: Place) -> list[str]:
    """The names of the files that a part consists of, within its folder; in an ``exported`` model they are IR."""
    if part.startswith("tokenizer"):
        return tokenizer.files_of(place.listing())
    if part == "scheduler":
        return ["scheduler_config.json"]
    if exported and part != "tiny_vae":
        return ["config.json", EXPORTED_FILE, EXPORTED_WEIGHTS]
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    return ["config.json", *(file.name for file in place.weight_files(stem))]


def _manifest(
    job: Job, places: Mapping[str, Place], models: Models | ExportedModels, scheduler: Mapping[str, Any]
) -> Manifest:
    """The manifest, but for what only the written files can tell."""
    origin, settings = job.checkpoint, Settings.of(job.checkpoint)
    factor = models.config.autoencoders.scale_factor
    native = models.config.unet.sample_size * factor
    limits = {
        "size_multiple": factor * models.grid_multiple,
        "minimum_size": _SMALLEST_GRID * factor,
        "maximum_size": max(_LARGEST, native),
        "native_size": native,
    }
    tiny = places.get("tiny_vae")
    elsewhere = tiny is not None and tiny.checkpoint is not origin
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler=scheduler,
        config=_config(job.index, models.config),
        defaults=settings.defaults(_defaults(native, scheduler, models.config)),
        limits=settings.limits(limits),
        source=Source(
            id=origin.id,
            revision=origin.revision,
            licence=licence_of(origin.card()),
            also={"tiny_vae": tiny.checkpoint.id} if tiny is not None and elsewhere else {},
        ),
        tools={},
        files={},
    )


def _config(index: Mapping[str, Any], config: SdxlConfig) -> dict[str, Any]:
    """The numbers that the family calculates with."""
    return {
        **config.autoencoders.numbers(),
        "text_widths": list(config.text_widths),
        "pooled_width": config.unet.pooled_width,
        "force_zeros_for_empty_prompt": int(bool(index.get("force_zeros_for_empty_prompt", True))),
        "time_cond_width": config.unet.time_cond_proj_dim or 0,
    }


def _defaults(native: int, scheduler: Mapping[str, Any], config: SdxlConfig) -> dict[str, dict[str, Any]]:
    """The family's at the size that the model was trained on; steps and guidance of a model that draws in few."""
    own: dict[str, Any] = {"height": native, "width": native}
    if all(scheduler[key] == value for key, value in _TURBO.items()):
        own |= _TURBO_DEFAULTS
    elif scheduler["class"] == "LCMScheduler":
        told = config.unet.time_cond_proj_dim is not None
        own |= {"num_inference_steps": _CONSISTENCY_STEPS, "guidance_scale": _CONSISTENCY_SCALES[told]}
    defaults = FAMILY.defaults()
    defaults["generate"] |= own
    return defaults
