"""The catalog of models: it opens the model of a name, a path or a hub id."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vinograph import folders
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.families import registry
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import MANIFEST_FILE, Manifest
from vinograph.values import reading, shown

if TYPE_CHECKING:
    from vinograph.models.checkpoint import Checkpoint
    from vinograph.models.model import Model

_INDEX = "model_index.json"
_SINGLE_FILE = ".safetensors"
_EMBEDDED = Path(__file__).parents[1] / "embedded"
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


def embedded() -> list[Path]:
    """The directories of the bundles that are part of the package."""
    return sorted(file.parent for file in _EMBEDDED.glob(f"*/{MANIFEST_FILE}"))


def models_folder() -> Path:
    """The models folder: ``VINOGRAPH_MODELS``, else ``~/.local/share/vinograph/models``."""
    return folders.models()


def installed() -> list[Path]:
    """The directories of the bundles in the models folder."""
    folder = models_folder()
    return sorted(file.parent for file in folder.glob(f"*/{MANIFEST_FILE}")) if folders.is_there(folder) else []


def sources(**named: str | os.PathLike[str] | None) -> dict[str, str]:
    """Options of :func:`find` from the sources that are given: a file, a directory or a hub id each.

    Raises:
        RequestError: one is neither a text nor a path.
    """
    found = {}
    for name, source in named.items():
        if source is not None:
            with reading(name, source):
                found[name] = os.fspath(source)
            if not isinstance(found[name], str):
                raise RequestError(f"{name} is {shown(source)}; give a file, a directory or a hub id as text")
    return found


def find(reference: str | os.PathLike[str], options: Mapping[str, Any] = _NO_OPTIONS) -> Model:
    """Open the model that ``reference`` names.

    Args:
        reference: the directory of a bundle or of a checkpoint in diffusers' layout, a single file,
            the name of an embedded model or of one in the models folder, a hub id, or one file of
            the hub ("owner/name/file.safetensors"). What huggingface_hub's cache has is not fetched
            again.
        options: what its family opens a checkpoint with, such as the source of a ``vae``.

    Raises:
        RequestError: ``reference`` is neither a text nor a path, the hub's cache can't be written,
            or the model doesn't take one of the options.
        ModelError: there is no such model, or Vinograph doesn't draw with it.
        ResourceError: the disk is full.
        DamagedModelError: a file of the model is missing or damaged.
    """
    with reading("model", reference):
        name = os.fspath(reference)
    if not isinstance(name, str):
        raise RequestError(f"model is {shown(reference)}; give a name, a path or a hub id as text")
    path = folders.expand(name)
    if folders.is_there(path, directory=True):
        return _open_directory(path, options)
    if folders.is_there(path):
        return _open_file(path, options)
    for folder in (_EMBEDDED, models_folder()):
        if re.fullmatch(r"[\w.-]+", name) and folders.is_there(folder / name / MANIFEST_FILE):
            return _open_bundle(folder / name, options)
    if _HUB_ID.fullmatch(name):
        return _from_hub(name, options)
    if name.endswith(_SINGLE_FILE) and (of_hub := _file_of_hub(name)) is not None:
        return _open_checkpoint(of_hub, options)
    if name in (known_models := registry.known_models()):
        _, known = known_models[name]
        raise ModelError(
            f"the model {name} is not here yet. Fetch it with: vinograph pull {name} "
            f"({known.download / 1e9:.3g} GB, licence {known.licence})"
        )
    names = [each.name for each in (*embedded(), *installed())]
    raise ModelError(
        f"there is no model {shown(name)}. By name there is: {', '.join(names) or 'none'}. "
        "Or give the directory of a bundle or of a checkpoint in diffusers' layout, a single file, or a hub id"
    )


def _file_of_hub(reference: str) -> Checkpoint | None:
    from vinograph.models import hub_file

    named = hub_file.split(reference)
    return None if named is None else hub_file.locate_file(*named)


def _open_bundle(path: Path, options: Mapping[str, Any], name: str | None = None) -> Bundle:
    """Open a bundle, which is complete; its ``name`` is by default its directory's.

    Raises:
        RequestError: there are options, which are for checkpoints.
    """
    if options:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in options)
        raise RequestError(f"{path} is a bundle, whose parts stay: {given} can be given when it is converted")
    return Bundle.open(path, name)


def _open_file(path: Path, options: Mapping[str, Any]) -> Model:
    from vinograph.models.checkpoint import locate

    return _open_checkpoint(locate(path, single_file=True), options)


def _open_directory(path: Path, options: Mapping[str, Any]) -> Model:
    if not (path / MANIFEST_FILE).is_file():
        from vinograph.models.checkpoint import locate
        from vinograph.models.recognition import is_published

        checkpoint = locate(path)
        if is_published(checkpoint.listing):
            return _open_checkpoint(checkpoint, options)
    return _open_bundle(path, options)


def _open_checkpoint(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Model:
    """Open a published checkpoint, without reading its weights."""
    from vinograph.models.checkpoint_model import CheckpointModel
    from vinograph.models.opening import identify, open_checkpoint

    index, family = identify(checkpoint, options)
    return CheckpointModel(checkpoint.path, open_checkpoint(checkpoint, index, family, options))


def _from_hub(repository: str, options: Mapping[str, Any]) -> Model:
    """A model of the hub: the one in its cache where that is whole, else fetched."""
    from vinograph.models import hub, hub_cache
    from vinograph.models.checkpoint import from_repository, in_cache
    from vinograph.models.hub_errors import UnreachableError
    from vinograph.models.recognition import is_published

    cached = hub_cache.cached_snapshots(repository, None)
    missing = "in the hub's cache"
    if len(cached) == 1 and (cached[0] / MANIFEST_FILE).is_file():
        try:
            return _open_bundle(cached[0], options, _name_of(repository))
        except (ModelError, DamagedModelError) as error:  # the missing files are fetched, if they can be
            missing = f"whole {missing} ({error})"
    try:
        found = hub.look_up(repository, None)
    except UnreachableError as error:
        if any((each / _INDEX).is_file() for each in cached):
            return _open_checkpoint(in_cache(repository, None, error), options)
        raise ModelError(
            f"no model {repository!r} was found here or {missing}, and the hub can't be reached ({error}). "
            f"Fetch it where there is a connection (hf download {repository}), or give the folder of a copy"
        ) from error
    if MANIFEST_FILE in found.listing:
        checkpoint = from_repository(found)
        checkpoint.fetch([*fetch_manifest(checkpoint).files])
        return _open_bundle(checkpoint.directory, options, _name_of(repository))
    if is_published(found.listing):
        return _open_checkpoint(from_repository(found), options)
    raise ModelError(
        f"{repository} on the hub is no model that Vinograph draws with: it has neither a {MANIFEST_FILE} nor a "
        f"{_INDEX}"
    )


def _name_of(repository: str) -> str:
    """What a bundle on the hub is called: its directory in the hub's cache is named by a commit."""
    return repository.rpartition("/")[2]


def fetch_manifest(repository: Checkpoint) -> Manifest:
    """Fetch the manifest of a bundle on the hub, and check that the hub has the files it lists.

    Raises:
        ModelError: the hub can't be reached, or the bundle is of a newer format.
        DamagedModelError: the manifest is garbled, or the repository lacks files of the bundle.
    """
    repository.fetch([MANIFEST_FILE])
    text = (repository.directory / MANIFEST_FILE).read_text(encoding="utf-8", errors="replace")
    manifest = Manifest.from_json(text, f"{repository.id}/{MANIFEST_FILE}")
    if missing := sorted(set(manifest.files) - repository.listing):
        raise DamagedModelError(f"{repository.id} lacks files of the bundle: {', '.join(missing[:10])}")
    return manifest
