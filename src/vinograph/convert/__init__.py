"""Checkpoint -> bundle. With `modules` and training, the only code that needs PyTorch.

A family's converter is one module here with one line in :data:`FAMILIES`. It has ``PIPELINES``, the class names in a
model_index.json that are its own; ``OPTIONS``, which of :func:`convert`'s options it takes; ``WEIGHTS``, how it stores
weights; and ``convert(job)``.
Those modules import PyTorch only inside functions, so that what can be refused is refused at once.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from vinograph.arguments import shown
from vinograph.bundle import Bundle, check_target
from vinograph.convert.checkpoint import INDEX_FILE, Checkpoint, Place, locate
from vinograph.errors import ModelError, RequestError, ResourceError
from vinograph.files import explained
from vinograph.schema import label

Progress = Callable[[str, int, int], None]

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "wuerstchen": "vinograph.convert.wuerstchen",
        "sdxl": "vinograph.convert.sdxl",
        "pixart": "vinograph.convert.pixart",
    }
)
WEIGHTS = ("f16", "f32", "int8", "int4")

_EXTRA = ("torch", "transformers")


@dataclass(frozen=True)
class Job:
    """One conversion. ``index`` is the checkpoint's model_index.json, ``options`` the family's that were given."""

    checkpoint: Checkpoint
    index: Mapping[str, Any]
    target: Path
    weights: str
    overwrite: bool
    options: Mapping[str, Any]
    progress: Progress


def convert(
    source: str | Path,
    target: Path,
    *,
    prior: str | None = None,
    tiny_vae: str | None = None,
    image_encoder: Path | None = None,
    weights: Literal["f16", "f32", "int8", "int4"] = "f16",
    revision: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Convert a published checkpoint to a bundle. Killed at any moment, the same call goes on where it stopped.

    Args:
        source: a directory in diffusers' layout, or a repository's id on the Hugging Face hub.
        target: the bundle's directory.
        prior: Würstchen: the prior's checkpoint, in place of the one that the source has or names.
        tiny_vae: SDXL and PixArt: the checkpoint of a tiny VAE, such as madebyollin/taesdxl, or madebyollin/taesd for
            PixArt, to hold beside the model's own.
        image_encoder: Würstchen: the file with the image encoder's published weights.
        weights: how weights are stored. PixArt's alone may be "int8" or "int4", of which its text encoder's are so,
            and all others f16.
        revision: branch, tag or commit of the source on the hub.
        overwrite: replace a bundle at ``target``, which stays until the new one is whole.
        progress: called with a component's name, its number and how many there are, as work on it begins.

    Raises:
        RequestError: an argument is wrong, ``target`` exists, or another conversion is writing it.
        ModelError: the family is unknown; weights are missing or pickled; a class is unknown; a package is missing.
        DamagedModelError: a file of the checkpoint is not what it should be.
        ResourceError: the disk or the memory is too small.
    """
    _check_weights(weights, WEIGHTS, "")
    target = Path(target)
    check_target(target, overwrite)
    checkpoint = locate(source, revision)
    index = _index(checkpoint)
    family = family_of(index, checkpoint.id)
    options = {"prior": prior, "tiny_vae": tiny_vae, "image_encoder": image_encoder}
    given = {name: value for name, value in options.items() if value is not None}
    converter = importlib.import_module(FAMILIES[family])
    for name in given:
        if name not in converter.OPTIONS:
            takes = ", ".join(_option(each) for each in converter.OPTIONS) or "none"
            raise RequestError(f"{_option(name)} is not an option of {family} models; theirs: {takes}")
    _check_weights(weights, converter.WEIGHTS, f" for {family} models")
    require_packages()
    job = Job(checkpoint, index, target, weights, overwrite, given, progress or _silent)
    with _explained(target):
        bundle: Bundle = converter.convert(job)
    return bundle


def _check_weights(weights: str, known: Sequence[str], where: str) -> None:
    if weights not in known:
        raise RequestError(f"weights is {weights!r}; give one of {', '.join(known)}{where}")


def _index(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's model_index.json. One part of a model, published alone, is told from what is incomplete."""
    if INDEX_FILE in checkpoint.listing or (place := _lone_part(checkpoint)) is None:
        return checkpoint.read_json(INDEX_FILE)
    kind = checkpoint.read_json(place.name("config.json")).get("_class_name", "network")
    if place.folder:
        advice = (
            f"put its {place.folder}/ into a copy of a whole checkpoint of the same kind, in place of the one there"
        )
    elif kind == "AutoencoderTiny":
        advice = f"convert a whole checkpoint and name this one with --tiny-vae {checkpoint.id}"
    else:
        advice = "put it in its folder of a copy of a whole checkpoint, with the scheduler that it was made for"
    raise ModelError(f"{checkpoint.id} has no {INDEX_FILE}: it is one part of a model alone ({label(kind)}); {advice}")


def _lone_part(checkpoint: Checkpoint) -> Place | None:
    """The one part that ``checkpoint`` has, at its top or in a folder, if it is known to have no other."""
    if "config.json" in checkpoint.listing:
        return Place(checkpoint, "")
    folders = [name.removesuffix("/config.json") for name in checkpoint.listing if name.endswith("/config.json")]
    return Place(checkpoint, folders[0]) if len(folders) == 1 and not checkpoint.is_partial else None


def family_of(index: Mapping[str, Any], origin: str) -> str:
    """The family of the pipeline that a model_index.json names.

    Raises:
        ModelError: it is none of ours, naming those.
    """
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise ModelError(f"{origin}: {INDEX_FILE} asks for code of its own ({shown(pipeline)}); Vinograph runs none")
    known = {name: importlib.import_module(module).PIPELINES for name, module in FAMILIES.items()}
    for name, pipelines in known.items():
        if pipeline in pipelines:
            return name
    ours = "; ".join(f"{name} ({', '.join(pipelines)})" for name, pipelines in known.items())
    raise ModelError(f"{origin} is a {label(pipeline)}, which Vinograph doesn't convert. It converts {ours}")


def require_packages() -> None:
    """Check that what conversion needs beyond the base package is installed, without importing it.

    Raises:
        ModelError: naming what is missing, and the extra.
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(f'conversion needs {" and ".join(missing)}: pip install "vinograph[convert]"')


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _silent(component: str, number: int, total: int) -> None:
    """Progress that nobody asked for."""


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Say what a full disk, a read-only place or too little memory means."""
    try:
        with explained(target):
            yield
    except MemoryError as error:
        raise ResourceError(_NO_MEMORY) from error


_NO_MEMORY = (
    "not enough memory for the conversion: it holds the largest component, for Würstchen in f32 and half as much again "
    "(6.3 GB for the published decoder), for SDXL as it is stored (6 GB for the published UNet), for PixArt no more "
    "than its transformer as it is stored (1.3 GB)"
)
