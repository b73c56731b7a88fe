"""SDXL's converter: what is read from a checkpoint, and what the bundle says.

Everything is checked before anything is written: classes, configurations, and every tensor's name, type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from vinograph import schedulers
from vinograph.arguments import shown
from vinograph.bundle import Bundle
from vinograph.convert import sdxl_layout, tokenizer
from vinograph.convert.assemble import Plan, TokenizerPlan, assemble
from vinograph.convert.checkpoint import INDEX_FILE, Place, fetch_parts, licence_of, scheduler_config
from vinograph.convert.sdxl_distilled import DEFAULTS, Distillation, distillation_of
from vinograph.convert.sdxl_layout import EXPORTED_FILE, EXPORTED_WEIGHTS
from vinograph.convert.settings import Settings, licence_file, size_limits
from vinograph.errors import ModelError
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


def convert(job: Job) -> Bundle:
    """Convert an SDXL checkpoint. Raises what :func:`vinograph.convert.convert` says."""
    places = sdxl_layout.find(job.checkpoint, job.index, job.options.get("tiny_vae"))
    scheduler = schedulers.settings(scheduler_config(places["scheduler"], job.index))
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
    limits = settings.limits(
        size_limits(factor * models.grid_multiple, _SMALLEST_GRID * factor, max(_LARGEST, native), native)
    )
    distilled = distillation_of(origin.id, job.index, scheduler, models.config)
    tiny = places.get("tiny_vae")
    elsewhere = tiny is not None and tiny.checkpoint is not origin
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler=scheduler,
        config=_config(job.index, models.config),
        defaults=settings.defaults(FAMILY, _defaults(native, distilled), limits),
        limits=limits,
        source=Source(
            id=origin.id,
            revision=origin.revision,
            licence=licence_of(origin.card()),
            also={"tiny_vae": tiny.checkpoint.id} if tiny is not None and elsewhere else {},
        ),
        tools={},
        files={},
        notes=() if settings.sets("generate", DEFAULTS) else distilled.notes,
    )


def _config(index: Mapping[str, Any], config: SdxlConfig) -> dict[str, Any]:
    """The numbers that the family calculates with."""
    return {
        **config.autoencoders.numbers(),
        "text_widths": list(config.text_widths),
        "pooled_width": config.unet.pooled_width,
        "force_zeros_for_empty_prompt": int(_flag(index, "force_zeros_for_empty_prompt", True)),
        "time_cond_width": config.unet.time_cond_proj_dim or 0,
    }


def _flag(index: Mapping[str, Any], name: str, default: bool) -> bool:
    value = index.get(name, default)
    if not isinstance(value, bool | None):
        raise ModelError(f"{INDEX_FILE} has {name} = {shown(value)}, where true or false should be")
    return bool(value)


def _defaults(native: int, distilled: Distillation) -> dict[str, dict[str, Any]]:
    """The family's at the size that the model was trained on; steps and guidance of a model that draws in few."""
    defaults = FAMILY.defaults()
    defaults["generate"] |= {"height": native, "width": native, **distilled.defaults}
    return defaults
