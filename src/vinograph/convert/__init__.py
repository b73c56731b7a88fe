"""A published checkpoint to a bundle on disk: the same graphs, smaller and quicker to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vinograph import files
from vinograph.adapters.adaptation import adapt
from vinograph.convert.assemble import assemble
from vinograph.errors import RequestError, ResourceError
from vinograph.models import opening
from vinograph.models.bundle import Bundle
from vinograph.models.bundle_writer import check_target
from vinograph.models.checkpoint import BeforeFetch, Checkpoint, do_nothing_before_fetch, locate
from vinograph.models.checkpoint_model import CheckpointModel, OpenedCheckpoint

Progress = Callable[[str, int, int], None]

WEIGHTS = ("f16", "f32", "int8", "int4")


@dataclass(frozen=True)
class Job:
    """One conversion: where to, how weights are stored, and what is called with the progress.

    ``adapters`` are merged, with these weights.
    """

    target: Path
    weights: str
    overwrite: bool
    progress: Progress
    adapters: Mapping[str, float] | Mapping[Path, float] = field(default_factory=dict)


def convert(
    source: str | Path,
    target: Path,
    *,
    prior: str | None = None,
    tiny_vae: str | None = None,
    vae: str | None = None,
    base: str | None = None,
    image_encoder: Path | None = None,
    adapters: Mapping[str, float] | Mapping[Path, float] | None = None,
    weights: Literal["f16", "f32", "int8", "int4"] = "f16",
    revision: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Convert a published checkpoint to a bundle.

    Killed at any moment, the same call goes on where it stopped.

    Args:
        source: a directory in diffusers' layout, a single file of SDXL, or a repository's id on the
            Hugging Face hub.
        target: the bundle's directory.
        prior: Würstchen: the prior's checkpoint, in place of the one that the source holds or
            names.
        tiny_vae: SDXL and PixArt: the checkpoint of a tiny VAE to add, such as madebyollin/taesdxl
            (SDXL) or madebyollin/taesd (PixArt).
        vae: SDXL: the full VAE in place of the source's, as a file, a directory or a hub id.
        base: SDXL: the model that has what a single file or a UNet alone lacks.
        image_encoder: Würstchen: the file with the image encoder's published weights.
        adapters: weights of adapters by their files, which are merged into the bundle's weights.
        weights: how weights are stored. "f32" leaves them as the checkpoint has them. "int8" is for
            text encoders and denoisers, and "int4" for PixArt's text encoder; other components are
            then stored in f16.
        revision: branch, tag or commit of the source on the hub.
        overwrite: replace a bundle at ``target``, which stays until the new one is complete.
        progress: called with a component's name, its number and the number of all, as work on it
            begins.

    Raises:
        RequestError: an argument is wrong, ``target`` exists, or another conversion is writing it.
        ModelError: the family is unknown; weights are missing or pickled; a class is unknown.
        DamagedModelError: a file of the checkpoint is not what it should be.
        ResourceError: the disk or the memory is too small.
    """
    check_weights(weights)
    target = Path(target)
    check_target(target, overwrite)
    options = {"prior": prior, "tiny_vae": tiny_vae, "vae": vae, "base": base, "image_encoder": image_encoder}
    given = {name: value for name, value in options.items() if value is not None}
    job = Job(target, weights, overwrite, progress or _silent, adapters or {})
    return convert_checkpoint(locate(source, revision, single_file=True), given, job)


def convert_checkpoint(
    checkpoint: Checkpoint,
    options: Mapping[str, Any],
    job: Job,
    before_fetch: BeforeFetch = do_nothing_before_fetch,
    licence: str | None = None,
) -> Bundle:
    """Convert a located checkpoint, with ``options`` of its family.

    ``before_fetch`` is called with all files that are needed, before any large one is fetched.
    ``licence`` counts if the checkpoint's card names none. Raises what :func:`convert` does.
    """
    index, family = opening.identify(checkpoint, options)
    _check_weights(job.weights, opening.checkpoint_module(family).WEIGHTS, f" for {family} models")
    with explained(job.target):
        opened = opening.open_checkpoint(checkpoint, index, family, options, before_fetch)
        source = opened.manifest.source
        if source.licence is None and licence is not None:
            source = dataclasses.replace(source, licence=licence)
            opened = dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, source=source))
        return assemble(_with_adapters(checkpoint, opened, job.adapters), job)


def _with_adapters(
    checkpoint: Checkpoint, opened: OpenedCheckpoint, adapters: Mapping[str, float] | Mapping[Path, float]
) -> OpenedCheckpoint:
    """The checkpoint with adapters merged into its components, which its manifest names."""
    if not adapters:
        return opened
    adaptation = adapt(CheckpointModel(checkpoint.directory, opened), adapters)
    source = opened.manifest.source
    named = {f"adapter {number}": text for number, text in enumerate(adaptation.descriptions(), 1)}
    source = dataclasses.replace(source, also={**source.also, **named})
    notes = (*opened.manifest.notes, *adaptation.warnings)
    return dataclasses.replace(
        opened,
        manifest=dataclasses.replace(opened.manifest, source=source, notes=notes),
        components=tuple(adaptation.plan(plan) for plan in opened.components),
        files=(*opened.files, *(each.file.path for each in adaptation.adapters)),
    )


def check_weights(weights: str) -> None:
    """Check the name of a way to store weights.

    Raises:
        RequestError: naming the known ones.
    """
    _check_weights(weights, WEIGHTS, "")


def _check_weights(weights: str, known: Sequence[str], where: str) -> None:
    if weights not in known:
        raise RequestError(f"weights is {weights!r}; give one of {', '.join(known)}{where}")


def _silent(component: str, number: int, total: int) -> None:
    """Ignore the progress."""


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn errors of a full disk, a read-only place and too little memory into errors of ours."""
    try:
        with files.explained(target):
            yield
    except MemoryError as error:
        raise ResourceError(_NO_MEMORY) from error


_NO_MEMORY = "not enough memory for the conversion, which takes less than 1 GB besides what is mapped from files"
