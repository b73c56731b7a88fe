"""Planning a pull: a model's repositories, their licences, and the bytes to fetch and to store."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vinograph import folders
from vinograph.errors import DamagedModelError, ModelError, RequestError, ResourceError
from vinograph.families import registry
from vinograph.families.known import Companion, KnownModel
from vinograph.files import existing, hidden_sibling
from vinograph.models import catalog, hub_file
from vinograph.models.checkpoint import HUB_ID, Checkpoint, NeededFiles, on_hub
from vinograph.models.hub_cache import cache_folder
from vinograph.models.hub_downloads import RemoteFile
from vinograph.models.hub_errors import UnreachableError
from vinograph.models.model_card import licence_of
from vinograph.models.safetensors import read_header
from vinograph.values import shown

_NAME = re.compile(r"[^\W_][\w.-]{0,99}")
_WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Pull:
    """A model to fetch: its repository, the name that it gets here, and its companions.

    ``known`` is its entry in the table of known models, if it has one. Of a single file, which
    ``is_file``, the repository is its path, or the name of the file on the hub.
    """

    repository: str
    name: str
    known: KnownModel | None
    companions: tuple[Companion, ...] = ()
    is_file: bool = False

    @property
    def target(self) -> Path:
        """The directory of the model's bundle."""
        return catalog.models_folder() / self.name

    def licence_of(self, repository: str) -> str | None:
        """The licence of the model or of a companion, where the table of known models has it."""
        if self.known is None:
            return None
        licences = {each.repository: each.licence for each in self.companions}
        return {**licences, self.known.repository: self.known.licence}.get(repository)


def resolve(reference: str, name: str | None = None, companions: Collection[str] = ()) -> Pull:
    """The model that ``reference`` names: one that is known by name, or a repository of the hub.

    Args:
        reference: a known model's name, a hub id ("owner/name"), or a single file, on this disk or
            in a repository of the hub ("owner/name/file.safetensors").
        name: the model's name here. Default: the known name, else the last part of the id.
        companions: the names of optional companions to fetch, too.

    Raises:
        RequestError: the reference is neither, no model can have the name, or there is no such
            companion.
    """
    known_models = registry.known_models()
    known = next((each for _, each in known_models.values() if reference in (each.name, each.repository)), None)
    if known is None and (path := folders.expand(reference)).name.endswith(".safetensors") and folders.is_there(path):
        own = _name_of(path.stem) if name is None else name
        return Pull(str(path), _check_name(own), None, _chosen((), reference, companions), is_file=True)
    if known is None and (of_hub := hub_file.split(reference)) is not None:
        own = _name_of(Path(of_hub[1]).stem) if name is None else name
        return Pull(reference, _check_name(own), None, _chosen((), reference, companions), is_file=True)
    if known is None and not HUB_ID.fullmatch(reference):
        here = f" It is a path: vinograph convert {reference} BUNDLE" if folders.is_there(Path(reference)) else ""
        raise RequestError(
            f"{shown(reference)} is neither a model that is known by name ({', '.join(known_models)}) nor the id of a "
            f"hub repository (owner/name).{here}"
        )
    if known is None:
        own = _name_of(reference) if name is None else name
        return Pull(reference, _check_name(own), None, _chosen((), reference, companions))
    chosen = _chosen(known.optional, known.name, companions)
    return Pull(known.repository, _check_name(known.name if name is None else name), known, known.required + chosen)


def _chosen(optional: Sequence[Companion], model: str, wanted: Collection[str]) -> tuple[Companion, ...]:
    names = {each.name: each for each in optional}
    for name in wanted:
        if name not in names:
            available = ", ".join(names) or "none"
            raise RequestError(f"--with is {shown(name)}; the optional companions of {model}: {available}")
    return tuple(each for name, each in names.items() if name in wanted)


def _name_of(repository: str) -> str:
    """A name for the model of a repository: the last part of its id in lower case."""
    name = re.sub(r"[^\w.-]", "-", repository.rpartition("/")[2].lower()).strip("._-")
    return name[:100] or "model"


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"--as is {shown(name)}; give a name of letters, digits, '.', '-' and '_', the first a letter or a digit"
        )
    if name in {each.name for each in catalog.embedded()}:
        raise RequestError(f"--as is {shown(name)}, which is the name of an embedded model: give another name")
    return name


def companion_file(companion: Companion) -> tuple[Checkpoint, Path]:
    """The repository of a companion that is one file, and that file's path once it is fetched.

    Raises:
        ModelError: the hub and its cache have no such repository, or the repository has no such
            file.
    """
    assert companion.file is not None
    checkpoint = on_hub(companion.repository, None)
    checkpoint.require([companion.file])
    return checkpoint, checkpoint.directory / companion.file


@dataclass(frozen=True)
class RepositoryPlan:
    """The files that are needed of one repository, and the names of those that are missing here.

    ``licence`` is the one that its card names, else the known one, else None.
    """

    checkpoint: Checkpoint
    licence: str | None
    files: Mapping[str, RemoteFile]
    missing: frozenset[str]

    @property
    def size(self) -> int:
        """The bytes of all the files."""
        return sum(each.size for each in self.files.values())

    @property
    def to_fetch(self) -> dict[str, RemoteFile]:
        """The files that have to be fetched."""
        return {name: file for name, file in self.files.items() if name in self.missing}

    @property
    def download(self) -> int:
        """The bytes that have to be fetched."""
        return sum(each.size for each in self.to_fetch.values())


@dataclass(frozen=True)
class PullPlan:
    """A model's repositories, and the most bytes that writing its bundle takes."""

    repositories: tuple[RepositoryPlan, ...]
    bundle: int

    @property
    def size(self) -> int:
        """The bytes of all files that the model is made from."""
        return sum(each.size for each in self.repositories)

    @property
    def download(self) -> int:
        """The bytes that have to be fetched."""
        return sum(each.download for each in self.repositories)


def licences(pull: Pull, checkpoints: Iterable[Checkpoint]) -> dict[str, str | None]:
    """The licence of each checkpoint by its id: the one on its model card, else the known one."""
    return {each.id: licence_of(each.card()) or pull.licence_of(each.id) for each in checkpoints}


def files_needed(needed: NeededFiles, licence: Mapping[str, str | None]) -> tuple[RepositoryPlan, ...]:
    """Plan what is needed of each repository; only lists of files are fetched.

    Raises:
        ModelError: the hub can't be reached.
    """
    return tuple(_files_of(checkpoint, names, licence[checkpoint.id]) for checkpoint, names in needed)


def _files_of(checkpoint: Checkpoint, names: Sequence[str], licence: str | None) -> RepositoryPlan:
    missing = frozenset(name for name in names if not (checkpoint.directory / name).is_file())
    listed: Mapping[str, RemoteFile] = {}
    if missing:
        from vinograph.models import hub

        assert checkpoint.revision is not None, "of a folder on this disk nothing is missing"
        listed = hub.remote_files(checkpoint.repository, checkpoint.revision)
        if unlisted := sorted(missing - listed.keys()):
            raise ModelError(f"the hub lists {', '.join(unlisted)} in {checkpoint.id}, but does not say their size")
    sizes = {
        name: listed[name] if name in missing else RemoteFile((checkpoint.directory / name).stat().st_size, "")
        for name in names
    }
    return RepositoryPlan(checkpoint, licence, sizes, missing)


def weights_sizes(repositories: Iterable[RepositoryPlan], bytes_per_value: int) -> list[int]:
    """The bytes of each part's weights once they are written with ``bytes_per_value``.

    The number of values comes from a file's header, of which no more is fetched. A file without a
    header that can be read counts with its own size. Pickled weights don't count: only a small part
    of them is read.
    """
    parts: Counter[tuple[str, str]] = Counter()
    for repository in repositories:
        for name, file in repository.files.items():
            part = (repository.checkpoint.id, str(PurePosixPath(name).parent))
            if name.endswith(_WEIGHTS):
                values = _values(repository, name)
                parts[part] += file.size if values is None else values * bytes_per_value
            elif name.endswith(".bin"):
                parts[part] += file.size
    return [*parts.values()]


def _values(repository: RepositoryPlan, name: str) -> int | None:
    """How many values a safetensors file holds; None where its header can't be read.

    That is no reason to stop an estimate: whoever reads the file says what is wrong with it.
    """
    checkpoint = repository.checkpoint
    if name not in repository.missing:
        with suppress(ModelError, DamagedModelError):
            return sum(record.size for record in read_header(checkpoint.directory / name).values())
        return None
    from vinograph.models import hub

    assert checkpoint.revision is not None
    with suppress(UnreachableError, DamagedModelError):
        header = hub.read_header(checkpoint.repository, checkpoint.revision, name)
        count: int = sum(math.prod(entry["shape"]) for entry in header.values())
        return count
    return None


def check_space(plan: PullPlan, target: Path) -> None:
    """Check that the disks have room for the files to fetch and for the bundle.

    Files that an interrupted conversion has left count as part of the bundle.

    Raises:
        ResourceError: there is too little; the message says how much is needed, what for, and how
            much is free.
    """
    cache, models = existing(cache_folder().absolute()), existing(target.parent.absolute())
    bundle = max(0, plan.bundle - _written(hidden_sibling(target, ".partial")))
    if cache.stat().st_dev == models.stat().st_dev:
        parts = f"{_gb(plan.download)} to fetch and {_gb(bundle)} for the bundle"
        _check_room(models, plan.download + bundle, parts, "VINOGRAPH_MODELS or HF_HOME")
    else:
        _check_room(cache, plan.download, "to fetch it", "HF_HOME")
        _check_room(models, bundle, "for the bundle", "VINOGRAPH_MODELS")


def check_place(target: Path) -> None:
    """Check, before anything is fetched, that a bundle can be written to ``target``.

    Raises:
        RequestError: it can't; the message says how to set another folder.
    """
    folder = existing(target.parent.absolute())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise RequestError(f"{target} can't be written: set VINOGRAPH_MODELS to a folder that can be")


def _check_room(folder: Path, needed: int, purpose: str, variable: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{_gb(needed)} are needed on the disk of {folder}, {purpose}, and {_gb(free)} are free: free some, or set "
            f"{variable} to a folder on another disk"
        )


def _written(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) if folder.is_dir() else 0


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e7 else f"{count / 1e9:.4f} GB"
