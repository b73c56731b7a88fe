"""Würstchen's converter: what is read from a checkpoint, and what the bundle says.

Everything is checked before anything is written: classes, configurations, and every tensor's name, type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vinograph.arguments import shown
from vinograph.bundle import Bundle
from vinograph.convert import tokenizer, wuerstchen_layout
from vinograph.convert.assemble import Plan, TokenizerPlan, assemble
from vinograph.convert.checkpoint import Place, fetch_parts, licence_of
from vinograph.convert.settings import Settings, licence_file
from vinograph.convert.wuerstchen_layout import Layout
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.families.wuerstchen import FAMILY, STAGE_SCHEDULER
from vinograph.manifest import Manifest, Source
from vinograph.schema import SchemaError

if TYPE_CHECKING:
    from vinograph.convert import Job
    from vinograph.convert.clip import ClipTextEncoder
    from vinograph.convert.skeleton import Skeleton
    from vinograph.convert.wuerstchen_models import Models

PIPELINES = wuerstchen_layout.PIPELINES
OPTIONS = ("prior", "image_encoder")
WEIGHTS = ("f16", "f32")

_SCHEDULERS = {"prior": "prior_scheduler", "decoder": "scheduler"}
_LIMITS: Mapping[str, int] = MappingProxyType(
    {"size_multiple": 128, "minimum_size": 128, "maximum_size": 2048, "native_size": 1024}
)


def convert(job: Job) -> Bundle:
    """Convert a Würstchen checkpoint. Raises what :func:`vinograph.convert.convert` says."""
    layout = wuerstchen_layout.find(job.checkpoint, job.index, job.options.get("prior"))
    files = fetch_parts(layout.places, _files_of)
    image_encoder = job.options.get("image_encoder")
    if image_encoder is not None:
        files.append(_existing(Path(image_encoder)))
    from vinograph.convert.wuerstchen_models import Models

    models = Models.check(layout.places, image_encoder)
    plan = Plan(
        weights=models.weights(),
        tokenizers={
            "prior_tokenizer": _tokenizer(layout.places["prior_tokenizer"], models.prior_text_encoder),
            "tokenizer": _tokenizer(layout.places["tokenizer"], models.text_encoder),
        },
        manifest=_manifest(job, layout, models),
        files=tuple(files),
        licence_file=licence_file(job.checkpoint),
    )
    return assemble(plan, job)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise RequestError(f"--image-encoder {file} is not a file")
    return file


def _files_of(part: str, place: Place) -> list[str]:
    """The names of the files that a part consists of, within its folder."""
    if part.endswith("tokenizer"):
        return tokenizer.files_of(place.listing())
    if part.endswith("scheduler"):
        return ["scheduler_config.json"]
    stem = "model" if part.endswith("encoder") else "diffusion_pytorch_model"
    return ["config.json", *(file.name for file in place.weight_files(stem))]


def _tokenizer(place: Place, text_encoder: Skeleton[ClipTextEncoder]) -> TokenizerPlan:
    return TokenizerPlan(place.directory, text_encoder.module.config.max_position_embeddings)


def _manifest(job: Job, layout: Layout, models: Models) -> Manifest:
    """The manifest, but for what only the written files can tell."""
    origin = job.checkpoint
    settings = Settings.of(origin)
    limits = settings.limits(_LIMITS)
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler={stage: _scheduler(layout.places[part]) for stage, part in _SCHEDULERS.items()},
        config=_config(layout, models),
        defaults=settings.defaults(FAMILY, FAMILY.defaults(), limits),
        limits=limits,
        source=Source(
            id=origin.id,
            revision=origin.revision,
            licence=licence_of(origin.card()),
            also={"prior": layout.prior_id} if layout.prior_id else {},
        ),
        tools={},
        files={},
    )


def _config(layout: Layout, models: Models) -> dict[str, Any]:
    """The numbers that the family calculates with."""
    from vinograph.convert.wuerstchen_models import attention_widths, effnet_levels

    prior, decoder, vqgan = models.prior.module.config, models.decoder.module.config, models.vqgan.module.config
    return {
        **layout.numbers,
        "prior_channels": prior.c_in,
        "latent_channels": decoder.c_in,
        "scale_factor": vqgan.scale_factor,
        "decoder_patch_size": decoder.patch_size,
        "decoder_level_count": len(decoder.c_hidden),
        "effnet_levels": effnet_levels(models.decoder.module),
        "prior_text_width": prior.c_cond,
        "decoder_text_width": decoder.clip_embd,
        "prior_attention": prior.depth,
        "decoder_attention_widths": attention_widths(models.decoder.module),
    }


def _scheduler(place: Place) -> dict[str, float]:
    """The two numbers of the cosine schedule.

    Raises:
        ModelError: it is another scheduler than Würstchen's.
        DamagedModelError: they are no numbers.
    """
    config = place.config("scheduler_config.json")
    kind = config.get("_class_name", "DDPMWuerstchenScheduler")
    if kind != "DDPMWuerstchenScheduler":
        raise ModelError(f"{place.checkpoint.id} is sampled by {shown(kind)}; Würstchen's is DDPMWuerstchenScheduler")
    numbers = {"scaler": config.get("scaler", 1.0), "s": config.get("s", 0.008)}
    try:
        STAGE_SCHEDULER.check("its scheduler", numbers)
    except SchemaError as error:
        raise DamagedModelError(f"{place.directory / 'scheduler_config.json'} can't be used: {error}") from error
    return {name: float(each) for name, each in numbers.items()}
