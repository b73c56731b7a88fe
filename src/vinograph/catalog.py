"""A name, a path or a hub id, to a bundle on this disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vinograph import folders
from vinograph.arguments import reading, shown
from vinograph.bundle import Bundle
from vinograph.errors import DamagedModelError, ModelError, RequestError, ResourceError
from vinograph.files import is_full, is_unwritable
from vinograph.manifest import MANIFEST_FILE, Manifest

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


def _open_directory(path: Path) -> Bundle:
    if not (path / MANIFEST_FILE).is_file() and (path / "model_index.json").is_file():
        raise ModelError(
            f"{path} is a checkpoint, not a bundle. Convert it first: vinograph convert {path} {path.name}-openvino"
        )
    return Bundle.open(path)


def _from_hub(repository: str) -> Bundle:
    """A bundle of the hub: the one in its cache if that is whole, else fetched."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Bundle.open(Path(huggingface_hub.snapshot_download(repository, local_files_only=True)))
    except (LocalEntryNotFoundError, HFValidationError, ModelError, DamagedModelError):
        return _fetch(repository)


def _fetch(repository: str) -> Bundle:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        manifest = huggingface_hub.hf_hub_download(repository, MANIFEST_FILE)
        # The manifest is a valid one before anything large is fetched.
        Manifest.from_json(Path(manifest).read_bytes(), f"{repository}/{MANIFEST_FILE}")
        return Bundle.open(Path(huggingface_hub.snapshot_download(repository)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        if isinstance(error, OSError) and is_full(error):
            raise ResourceError(f"the disk is full: the hub's cache has no room for {repository}") from error
        if is_unwritable(error):
            raise RequestError(
                f"the hub's cache, {folders.hub_cache()}, can't be written ({error}): set HF_HOME to a folder that "
                f"can, or give a bundle's directory in place of {repository}"
            ) from error
        raise ModelError(
            f"no bundle {repository!r} was found here, in the hub's cache, or on the hub ({type(error).__name__}). "
            f"If it is a checkpoint, convert it first: vinograph convert {repository} {repository.split('/')[1]}"
        ) from error
