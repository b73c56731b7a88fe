"""PixArt's converter: what is read from a checkpoint, and what the bundle says.

Everything is checked before anything is written: classes, configurations, and every tensor's name, type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vinograph import schedulers
from vinograph.bundle import Bundle
from vinograph.convert import pixart_layout, tokenizer
from vinograph.convert.assemble import Plan, TokenizerPlan, assemble
from vinograph.convert.checkpoint import Place, fetch_parts, licence_of, scheduler_config
from vinograph.convert.settings import Settings, licence_file, size_limits
from vinograph.families.aspect_ratios import ASPECT_RATIOS
from vinograph.families.pixart import FAMILY
from vinograph.manifest import Manifest, Source

if TYPE_CHECKING:
    from vinograph.convert import Job
    from vinograph.convert.pixart_models import Models

PIPELINES = tuple(pixart_layout.TEXT_LENGTHS)
OPTIONS = ("tiny_vae",)
WEIGHTS = ("f16", "f32", "int8", "int4")
"""Of which those in int8 and int4 are the text encoder's; all others are stored in f16 beside them."""

_LARGEST = 2048
_SMALLEST_GRID = 8
# What the authors draw with when the model is distilled as a latent consistency model (arXiv 2310.04378).
_CONSISTENCY = "LCMScheduler"
_CONSISTENCY_DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 0.0}


def convert(job: Job) -> Bundle:
    """Convert a PixArt checkpoint. Raises what :func:`vinograph.convert.convert` says."""
    places = pixart_layout.find(job.checkpoint, job.index, job.options.get("tiny_vae"))
    scheduler = schedulers.settings(scheduler_config(places["scheduler"], job.index))
    files = fetch_parts(places, _files_of)
    from vinograph.convert.pixart_models import Models

    models = Models.check(places)
    length = pixart_layout.TEXT_LENGTHS[job.index["_class_name"]]
    plan = Plan(
        weights=models.weights(job.weights, job.target.absolute().parent),
        tokenizers={"tokenizer": TokenizerPlan(places["tokenizer"].directory, length, tokenizer.T5)},
        manifest=_manifest(job, places, models, scheduler),
        files=tuple(files),
        licence_file=licence_file(job.checkpoint),
    )
    return assemble(plan, job)


def _files_of(part: str, place: Place) -> list[str]:
    """The names of the files that a part consists of, within its folder."""
    if part == "tokenizer":
        return tokenizer.files_of(place.listing(), tokenizer.T5)
    if part == "scheduler":
        return ["scheduler_config.json"]
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    return ["config.json", *(file.name for file in place.weight_files(stem))]


def _manifest(job: Job, places: Mapping[str, Place], models: Models, scheduler: Mapping[str, Any]) -> Manifest:
    """The manifest, but for what only the written files can tell."""
    origin, settings = job.checkpoint, Settings.of(job.checkpoint)
    factor, sample_size = models.vaes.scale_factor, models.config.sample_size
    native = sample_size * factor
    trained = [side for size in ASPECT_RATIOS.get(sample_size, {}).values() for side in size]
    limits = settings.limits(
        size_limits(factor * models.config.patch_size, _SMALLEST_GRID * factor, max(_LARGEST, native, *trained), native)
    )
    tiny = places.get("tiny_vae")
    elsewhere = tiny is not None and tiny.checkpoint is not origin
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler=scheduler,
        config=_config(job.index, models),
        defaults=settings.defaults(FAMILY, _defaults(native, models, scheduler, job.index), limits),
        limits=limits,
        source=Source(
            id=origin.id,
            revision=origin.revision,
            licence=licence_of(origin.card()),
            also={"tiny_vae": tiny.checkpoint.id} if tiny is not None and elsewhere else {},
        ),
        tools={},
        files={},
        notes=_notes(scheduler, settings),
    )


def _notes(scheduler: Mapping[str, Any], settings: Settings) -> tuple[str, ...]:
    """What was assumed of how the model draws."""
    if scheduler["class"] != _CONSISTENCY or settings.sets("generate", _CONSISTENCY_DEFAULTS):
        return ()
    return (
        "defaults assumed: 4 steps without guidance, as for PixArt's consistency model, by the LCMScheduler; otherwise "
        "give --steps and --guidance-scale, or set them in the checkpoint's vinograph.json",
    )


def _config(index: Mapping[str, Any], models: Models) -> dict[str, Any]:
    """The numbers that the family calculates with."""
    transformer = models.config
    return {
        **models.vaes.numbers(),
        "text_width": transformer.text_width,
        "text_length": pixart_layout.TEXT_LENGTHS[index["_class_name"]],
        "out_channels": transformer.channels,
        "sample_size": transformer.sample_size,
        "size_conditions": int(transformer.size_conditions),
    }


def _defaults(
    native: int, models: Models, scheduler: Mapping[str, Any], index: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The family's defaults at the size that the model was trained on; a consistency model's own steps and guidance."""
    own: dict[str, Any] = {"height": native, "width": native}
    own["max_sequence_length"] = pixart_layout.TEXT_LENGTHS[index["_class_name"]]
    if scheduler["class"] == _CONSISTENCY:
        own |= _CONSISTENCY_DEFAULTS
    if models.config.sample_size not in ASPECT_RATIOS:
        own["use_resolution_binning"] = False
    defaults = FAMILY.defaults()
    defaults["generate"] |= own
    return defaults
