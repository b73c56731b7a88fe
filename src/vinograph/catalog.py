"""A name, a path or a hub id, to a bundle on this disk."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vinograph import folders
from vinograph.arguments import reading, shown
from vinograph.bundle import Bundle
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.manifest import MANIFEST_FILE, Manifest

if TYPE_CHECKING:
    from vinograph.hub import Repository

_EMBEDDED = Path(__file__).parent / "embedded"
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


def find(reference: str | os.PathLike[str]) -> Bundle:
    """Open the bundle that ``reference`` names: an embedded one, one in the models folder, a path, or a hub id.

    A hub id is looked for in huggingface_hub's cache first and fetched only if it isn't there.

    Raises:
        RequestError: ``reference`` is neither a text nor a path.
        ModelError: there is no such bundle, or it is a checkpoint that wants converting first.
        RequestError, ResourceError: the hub's cache can't be written, or the disk is full.
        DamagedModelError: a file of the bundle is missing or of the wrong size.
    """
    with reading("model", reference):
        name = os.fspath(reference)
    if not isinstance(name, str):
        raise RequestError(f"model is {shown(reference)}; give a name, a path or a hub id as text")
    path = folders.expand(name)
    if folders.is_there(path, directory=True):
        return _open_directory(path)
    if folders.is_there(path):
        raise ModelError(f"{path} is a file; a model is a bundle's directory")
    for folder in (_EMBEDDED, models_folder()):
        if re.fullmatch(r"[\w.-]+", name) and folders.is_there(folder / name / MANIFEST_FILE):
            return Bundle.open(folder / name)
    if _HUB_ID.fullmatch(name):
        return _from_hub(name)
    known = [each.name for each in (*embedded(), *found())]
    raise ModelError(
        f"there is no model {shown(name)}. By name there is: {', '.join(known) or 'none'}. "
        "Or give a bundle's directory; `vinograph convert` makes one from a checkpoint"
    )


def _exists(path: Path) -> bool:
    """Whether there is something; a name that no file can have is not there."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def _open_directory(path: Path) -> Bundle:
    if not (path / MANIFEST_FILE).is_file() and (path / "model_index.json").is_file():
        raise ModelError(
            f"{path} is a checkpoint, not a bundle. Convert it first: vinograph convert {path} {path.name}-openvino"
        )
    return Bundle.open(path)


def _from_hub(repository: str) -> Bundle:
    """A bundle of the hub: the one in its cache if that is whole, else fetched."""
    from vinograph import hub

    cached = hub.cached(repository, None)
    in_cache = "in the hub's cache"
    if len(cached) == 1:
        try:
            return Bundle.open(cached[0])
        except (ModelError, DamagedModelError) as error:  # the rest of it is fetched, if that can be
            in_cache = f"whole {in_cache} ({error})"
    advice = f"If it is a checkpoint, convert it first: vinograph convert {repository} {repository.split('/')[1]}"
    try:
        on_hub = hub.look_up(repository, None)
    except hub.UnreachableError as error:
        raise ModelError(
            f"no bundle {repository!r} was found here or {in_cache}, and the hub can't be reached ({error}). {advice}"
        ) from error
    if MANIFEST_FILE not in on_hub.listing:
        raise ModelError(f"{repository} on the hub is not a bundle: it has no {MANIFEST_FILE}. {advice}")
    return _fetch(on_hub)


def _fetch(repository: Repository) -> Bundle:
    """Fetch what a bundle's manifest lists, once that is known to be a valid one."""
    from vinograph import hub

    hub.fetch(repository.id, repository.commit, [MANIFEST_FILE])
    text = (repository.folder / MANIFEST_FILE).read_text(encoding="utf-8", errors="replace")
    manifest = Manifest.from_json(text, f"{repository.id}/{MANIFEST_FILE}")
    missing = sorted(set(manifest.files) - repository.listing)
    if missing:
        raise DamagedModelError(f"{repository.id} on the hub lacks files of the bundle: {', '.join(missing[:10])}")
    hub.fetch(repository.id, repository.commit, [*manifest.files])
    return Bundle.open(repository.folder)
