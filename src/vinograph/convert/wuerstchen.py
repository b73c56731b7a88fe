"""Würstchen's converter: what is read from a checkpoint, and what the bundle says.

Everything is checked before anything is written: classes, configurations, and every tensor's name, type and shape.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vinograph.bundle import Bundle, Manifest, Source
from vinograph.convert import tokenizer, wuerstchen_layout
from vinograph.convert.assemble import Plan, TokenizerPlan, assemble
from vinograph.convert.checkpoint import Checkpoint, Place, licence_of
from vinograph.convert.wuerstchen_layout import Layout
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.families.wuerstchen import FAMILY

if TYPE_CHECKING:
    from vinograph.convert import Job
    from vinograph.convert.clip import ClipTextEncoder
    from vinograph.convert.wuerstchen_models import Models, Skeleton

PIPELINES = wuerstchen_layout.PIPELINES
OPTIONS = ("prior", "image_encoder")

_SETTINGS_FILE = "vinograph.json"
_WITHOUT_WEIGHTS = ("prior_tokenizer", "tokenizer", "prior_scheduler", "scheduler")
_SCHEDULERS = {"prior": "prior_scheduler", "decoder": "scheduler"}
_LIMITS: Mapping[str, int] = MappingProxyType(
    {"size_multiple": 128, "minimum_size": 128, "maximum_size": 2048, "native_size": 1024}
)


def convert(job: Job) -> Bundle:
    """Convert a Würstchen checkpoint. Raises what :func:`vinograph.convert.convert` says."""
    layout = wuerstchen_layout.find(job.checkpoint, job.index, job.options.get("prior"))
    files = _fetch(layout)
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
        licence_file=_licence_file(job.checkpoint),
    )
    return assemble(plan, job)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise RequestError(f"--image-encoder {file} is not a file")
    return file


def _fetch(layout: Layout) -> list[Path]:
    """Have every file that is needed on this disk; those files.

    Raises:
        ModelError: naming those that a checkpoint lacks.
    """
    wanted: dict[int, tuple[Checkpoint, list[str]]] = {}
    for part, place in layout.places.items():
        names = wanted.setdefault(id(place.checkpoint), (place.checkpoint, []))[1]
        names += [place.name(file) for file in _files_of(part, place)]
    for checkpoint, names in wanted.values():
        checkpoint.require(names)
    for part, place in layout.places.items():
        if part not in _WITHOUT_WEIGHTS:
            place.config()  # refused, if need be, before the weights are fetched
    for checkpoint, names in wanted.values():
        checkpoint.fetch(names)
    return sorted({checkpoint.directory / name for checkpoint, names in wanted.values() for name in names})


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
    settings = job.checkpoint.read_json(_SETTINGS_FILE) if _SETTINGS_FILE in job.checkpoint.listing else {}
    origin = job.checkpoint
    return Manifest(
        family=FAMILY.name,
        name=str(settings.get("name", origin.id.rpartition("/")[2])),
        components={},
        tokenizers={},
        scheduler={stage: _scheduler(layout.places[part]) for stage, part in _SCHEDULERS.items()},
        config=_config(layout, models),
        defaults=_defaults(settings, origin.id),
        limits={**_LIMITS, **_numbers(settings, "limits", _LIMITS, origin.id)},
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
        raise ModelError(f"{place.checkpoint.id} is sampled by {kind}; Würstchen's is DDPMWuerstchenScheduler")
    numbers = {"scaler": config.get("scaler", 1.0), "s": config.get("s", 0.008)}
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers.values()):
        raise DamagedModelError(f"{place.directory / 'scheduler_config.json'} has {numbers}, which are no numbers")
    return {name: float(each) for name, each in numbers.items()}


def _defaults(settings: Mapping[str, Any], origin: str) -> dict[str, dict[str, Any]]:
    """What each call starts from: the family's defaults, where the checkpoint doesn't set its own."""
    told = settings.get("defaults", {})
    defaults = FAMILY.defaults()
    if not isinstance(told, dict) or not told.keys() <= defaults.keys():
        raise ModelError(f"{origin}: {_SETTINGS_FILE} has defaults {told!r}; give them for {', '.join(defaults)}")
    return {call: {**own, **_numbers(told, call, own, origin)} for call, own in defaults.items()}


def _numbers(settings: Mapping[str, Any], key: str, known: Collection[str], origin: str) -> dict[str, float]:
    """The numbers under ``key`` of the checkpoint's own settings."""
    found = settings.get(key, {})
    values = list(found.values()) if isinstance(found, dict) else [None]
    numeric = all(isinstance(each, int | float) and math.isfinite(each) for each in values)
    if not numeric or not found.keys() <= set(known):
        raise ModelError(f"{origin}: {_SETTINGS_FILE} has {key} {found!r}; give numbers for {', '.join(sorted(known))}")
    return dict(found)


def _licence_file(checkpoint: Checkpoint) -> Path | None:
    """The checkpoint's licence, where it has one."""
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"):
        if name in checkpoint.listing:
            checkpoint.fetch([name])
            return checkpoint.directory / name
    return None
