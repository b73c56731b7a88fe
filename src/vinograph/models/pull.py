"""What is fetched from the hub for a model: which repositories, under which licences, how many bytes, and the room."""

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
from typing import Any

from vinograph import folders, strict_json
from vinograph.errors import DamagedModelError, ModelError, RequestError, ResourceError
from vinograph.families import registry
from vinograph.families.known import Companion, KnownModel
from vinograph.files import existing, hidden_sibling
from vinograph.models import catalog
from vinograph.models.checkpoint import HUB_ID, Checkpoint, Needed, licence_of, on_hub
from vinograph.models.hub import RemoteFile
from vinograph.models.safetensors import read_header
from vinograph.values import shown

_NAME = re.compile(r"[^\W_][\w.-]{0,99}")
_WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Pull:
    """A model to fetch: the ``repository`` of it, the ``name`` that it gets here, and its companions.

    ``known`` is the entry of the model in its family's table, if it is in one.
    """

    repository: str
    name: str
    known: KnownModel | None
    companions: tuple[Companion, ...] = ()

    @property
    def target(self) -> Path:
        """The directory of the model's bundle."""
        return catalog.models_folder() / self.name

    def licence_of(self, repository: str) -> str | None:
        """The licence of the model or of a companion, as far as the table knows it."""
        if self.known is None:
            return None
        licences = {each.repository: each.licence for each in self.companions}
        return {**licences, self.known.repository: self.known.licence}.get(repository)


def resolve(reference: str, name: str | None = None, companions: Collection[str] = ()) -> Pull:
    """What ``reference`` names: a model that is known by name, or a repository of the hub.

    Args:
        reference: a known model's name, or a hub id ("owner/name").
        name: what the model is to be called here. Default: the known name, else the last part of the id.
        companions: names of optional companions that are to be fetched, too.

    Raises:
        RequestError: it is neither; the name is none that a model can have; or there is no such companion.
    """
    known_models = registry.known_models()
    known = next((each for _, each in known_models.values() if reference in (each.name, each.repository)), None)
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
            there = ", ".join(names) or "none"
            raise RequestError(f"--with is {shown(name)}; the optional companions of {model}: {there}")
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
    """The repository of a companion that is one file, and where that is once it is fetched.

    Raises:
        ModelError: the hub or its cache has no such repository, or it has no such file.
    """
    assert companion.file is not None
    checkpoint = on_hub(companion.repository, None)
    checkpoint.require([companion.file])
    return checkpoint, checkpoint.directory / companion.file


@dataclass(frozen=True)
class RepositoryPlan:
    """What is needed of one repository: all its ``files``, and of these the names of those that are ``missing`` here.

    ``licence`` is the one that its card names, else the one that is known, else None. A checkpoint on this disk has no
    ``commit``.
    """

    checkpoint: Checkpoint
    licence: str | None
    files: Mapping[str, RemoteFile]
    missing: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes of all the files."""
        return sum(each.size for each in self.files.values())

    @property
    def to_fetch(self) -> dict[str, RemoteFile]:
        """The files that are fetched."""
        return {name: file for name, file in self.files.items() if name in self.missing}

    @property
    def download(self) -> int:
        """Bytes that are fetched."""
        return sum(each.size for each in self.to_fetch.values())


@dataclass(frozen=True)
class PullPlan:
    """What is fetched for a model, and how many bytes its bundle takes at most while it is written."""

    repositories: tuple[RepositoryPlan, ...]
    bundle: int

    @property
    def size(self) -> int:
        """Bytes of all that the model is made from."""
        return sum(each.size for each in self.repositories)

    @property
    def download(self) -> int:
        """Bytes that are fetched."""
        return sum(each.download for each in self.repositories)


def licences(pull: Pull, checkpoints: Iterable[Checkpoint]) -> dict[str, str | None]:
    """The licence of each checkpoint, by its id: what its model card names, else what is known of it."""
    return {each.id: licence_of(each.card()) or pull.licence_of(each.id) for each in checkpoints}


def files_needed(needed: Needed, licence: Mapping[str, str | None]) -> tuple[RepositoryPlan, ...]:
    """What is needed of each repository, and what of it is here. Of the hub only lists of files are fetched.

    Raises:
        ModelError: the hub can't be reached.
    """
    return tuple(_files_of(checkpoint, names, licence[checkpoint.id]) for checkpoint, names in needed)


def _files_of(checkpoint: Checkpoint, names: Sequence[str], licence: str | None) -> RepositoryPlan:
    missing = frozenset(name for name in names if not (checkpoint.directory / name).is_file())
    there: Mapping[str, RemoteFile] = {}
    if missing:
        from vinograph.models import hub

        assert checkpoint.revision is not None, "of a folder on this disk nothing is missing"
        there = hub.files_of(checkpoint.id, checkpoint.revision)
        if unlisted := sorted(missing - there.keys()):
            raise ModelError(f"the hub lists {', '.join(unlisted)} in {checkpoint.id}, but does not say their size")
    sizes = {
        name: there[name] if name in missing else RemoteFile((checkpoint.directory / name).stat().st_size, "")
        for name in names
    }
    return RepositoryPlan(checkpoint, licence, sizes, missing)


def weights_sizes(repositories: Iterable[RepositoryPlan], bytes_per_value: int) -> list[int]:
    """Bytes that the weights of each part take once they are written with so many for each value.

    How many values a file has is in its header, of which no more than that is fetched; what has none is as large as it
    is. Pickled weights are not counted: of these a small part alone is read.
    """
    parts: Counter[tuple[str, str]] = Counter()
    for repository in repositories:
        for name, file in repository.files.items():
            place = (repository.checkpoint.id, str(PurePosixPath(name).parent))
            if name.endswith(_WEIGHTS):
                values = _values(repository, name)
                parts[place] += file.size if values is None else values * bytes_per_value
            elif name.endswith(".bin"):
                parts[place] += file.size
    return [*parts.values()]


def _values(repository: RepositoryPlan, name: str) -> int | None:
    """How many values a safetensors file holds; None where its header doesn't say so."""
    checkpoint = repository.checkpoint
    if name not in repository.missing:
        with suppress(ModelError, DamagedModelError):  # whoever reads it says what is wrong with it
            return sum(record.size for record in read_header(checkpoint.directory / name).values())
        return None
    from vinograph.models import hub

    assert checkpoint.revision is not None
    header = hub.read_header(checkpoint.id, checkpoint.revision, name)
    if header is None:
        return None
    try:
        tensors = strict_json.parse_object(header, largest=len(header), unique=True)
        return sum(math.prod(map(_count, each["shape"])) for key, each in tensors.items() if key != "__metadata__")
    except (strict_json.JsonError, TypeError, KeyError, ValueError):  # whoever reads it says what is wrong with it
        return None


def _count(size: Any) -> int:
    if not isinstance(size, int) or not 0 <= size < 2**48:
        raise ValueError(f"{size!r} is no number of values")
    return size


def check_space(plan: PullPlan, target: Path) -> None:
    """Check that the disks have room for what is fetched and for the bundle.

    What an interrupted conversion has left is part of the bundle.

    Raises:
        ResourceError: naming how much is needed, what for, and how much there is.
    """
    from vinograph.models import hub

    cache, place = existing(hub.cache_folder().absolute()), existing(target.parent.absolute())
    bundle = max(0, plan.bundle - _written(hidden_sibling(target, ".partial")))
    if cache.stat().st_dev == place.stat().st_dev:
        parts = f"{_gb(plan.download)} to fetch and {_gb(bundle)} for the bundle"
        _check_room(place, plan.download + bundle, parts, "VINOGRAPH_MODELS or HF_HOME")
    else:
        _check_room(cache, plan.download, "to fetch it", "HF_HOME")
        _check_room(place, bundle, "for the bundle", "VINOGRAPH_MODELS")


def check_place(target: Path) -> None:
    """Check, before anything is fetched, that a bundle can be written to ``target``.

    Raises:
        RequestError: naming the folder, and how to set another.
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
