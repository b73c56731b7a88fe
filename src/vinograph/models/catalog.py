"""A name, a path or a hub id, to a model on this disk: a bundle, or a published checkpoint."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vinograph import folders
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.families import registry
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import MANIFEST_FILE, Manifest
from vinograph.values import reading, shown

if TYPE_CHECKING:
    from vinograph.models.checkpoint import Checkpoint
    from vinograph.models.hub import Repository
    from vinograph.models.model import Model

_INDEX = "model_index.json"
_EMBEDDED = Path(__file__).parents[1] / "embedded"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


def embedded() -> list[Path]:
    """The directories of the bundles that ship with the package."""
    return sorted(file.parent for file in _EMBEDDED.glob(f"*/{MANIFEST_FILE}"))


def models_folder() -> Path:
    """Where bundles are looked for by name: ``VINOGRAPH_MODELS``, else ``~/.local/share/vinograph/models``."""
    return folders.models()


def found() -> list[Path]:
    """The directories of the bundles in the models folder."""
    folder = models_folder()
    return sorted(file.parent for file in folder.glob(f"*/{MANIFEST_FILE}")) if folders.is_there(folder) else []


def find(reference: str | os.PathLike[str]) -> Model:
    """Open the model that ``reference`` names: an embedded one, one in the models folder, a directory, or a hub id.

    A directory holds a bundle, or a checkpoint in diffusers' layout. A hub id is looked for in huggingface_hub's cache
    first and fetched only if it isn't there.

    Raises:
        RequestError: ``reference`` is neither a text nor a path; or the hub's cache can't be written.
        ModelError: there is no such model, or it is none that Vinograph draws with.
        ResourceError: the disk is full.
        DamagedModelError: a file of the model is missing, of the wrong size, or not what it should be.
    """
    with reading("model", reference):
        name = os.fspath(reference)
    if not isinstance(name, str):
        raise RequestError(f"model is {shown(reference)}; give a name, a path or a hub id as text")
    path = folders.expand(name)
    if folders.is_there(path, directory=True):
        return _open_directory(path)
    if folders.is_there(path):
        raise ModelError(f"{path} is a file; a model is a directory, of a bundle or in diffusers' layout")
    for folder in (_EMBEDDED, models_folder()):
        if re.fullmatch(r"[\w.-]+", name) and folders.is_there(folder / name / MANIFEST_FILE):
            return Bundle.open(folder / name)
    if _HUB_ID.fullmatch(name):
        return _from_hub(name)
    if name in (known_models := registry.known_models()):
        _, known = known_models[name]
        raise ModelError(
            f"the model {name} is not here yet. Fetch it with: vinograph pull {name} "
            f"({known.download / 1e9:.3g} GB, licence {known.licence})"
        )
    there = [each.name for each in (*embedded(), *found())]
    raise ModelError(
        f"there is no model {shown(name)}. By name there is: {', '.join(there) or 'none'}. "
        "Or give the directory of a bundle or of a checkpoint in diffusers' layout, or a hub id"
    )


def _open_directory(path: Path) -> Model:
    if not (path / MANIFEST_FILE).is_file():
        from vinograph.models.checkpoint import locate
        from vinograph.models.recognition import is_published

        checkpoint = locate(path)
        if is_published(checkpoint.listing):
            return _open_checkpoint(checkpoint)
    return Bundle.open(path)


def _open_checkpoint(checkpoint: Checkpoint) -> Model:
    """A checkpoint in diffusers' layout: its configurations and headers are read and compared, no weight is."""
    from vinograph.models.opened import CheckpointModel
    from vinograph.models.opening import look_at, open_checkpoint

    index, family = look_at(checkpoint)
    return CheckpointModel(checkpoint.directory, open_checkpoint(checkpoint, index, family, {}))


def _from_hub(repository: str) -> Model:
    """A model of the hub: the one in its cache if that is whole, else fetched."""
    from vinograph.models import hub
    from vinograph.models.checkpoint import in_cache, of_repository
    from vinograph.models.recognition import is_published

    cached = hub.cached(repository, None)
    place = "in the hub's cache"
    if len(cached) == 1 and (cached[0] / MANIFEST_FILE).is_file():
        try:
            return Bundle.open(cached[0])
        except (ModelError, DamagedModelError) as error:  # the rest of it is fetched, if that can be
            place = f"whole {place} ({error})"
    try:
        on_hub = hub.look_up(repository, None)
    except hub.UnreachableError as error:
        if any((each / _INDEX).is_file() for each in cached):
            return _open_checkpoint(in_cache(repository, None, error))
        raise ModelError(
            f"no model {repository!r} was found here or {place}, and the hub can't be reached ({error}). "
            f"Fetch it where there is a connection (hf download {repository}), or give the folder of a copy"
        ) from error
    if MANIFEST_FILE in on_hub.listing:
        return _fetch(on_hub)
    if is_published(on_hub.listing):
        return _open_checkpoint(of_repository(on_hub))
    raise ModelError(
        f"{repository} on the hub is no model that Vinograph draws with: it has neither a {MANIFEST_FILE} nor a "
        f"{_INDEX}"
    )


def _fetch(repository: Repository) -> Bundle:
    """Fetch what a bundle's manifest lists, once that is known to be a valid one."""
    from vinograph.models import hub

    hub.fetch(repository.id, repository.commit, [MANIFEST_FILE])
    text = (repository.folder / MANIFEST_FILE).read_text(encoding="utf-8", errors="replace")
    manifest = Manifest.from_json(text, f"{repository.id}/{MANIFEST_FILE}")
    missing = sorted(set(manifest.files) - repository.listing)
    if missing:
        raise DamagedModelError(f"{repository.id} on the hub lacks files of the bundle: {', '.join(missing[:10])}")
    hub.fetch(repository.id, repository.commit, [*manifest.files])
    return Bundle.open(repository.folder)
