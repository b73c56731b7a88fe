"""Published checkpoints: a directory on this disk or a repository of the hub, read as data only.

Before its family is known, nothing is fetched but the `model_index.json`; then what the family
needs is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph import folders, strict_json
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.models.model_card import CARD_FILE, LONGEST_SCALAR, read_card
from vinograph.models.safetensors import (
    DOWNLOAD_ORDER,
    ON_DISK_ORDER,
    TensorRecord,
    choose_weights,
    read_header,
    shards,
    weight_names,
)
from vinograph.schema import is_plain

if TYPE_CHECKING:
    from vinograph.models.hub import Repository

INDEX_FILE = "model_index.json"
# The files that any family may need: where even the index is missing, nobody knows which family it
# is.
_PATTERNS = '"*.json" "*.txt" "*.model" "*.safetensors" "README.md" "LICENSE*"'
_FIRST_FETCHED = {INDEX_FILE, "vinograph.json"}

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LARGEST_CONFIG = 10_000_000  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: where it is, and the names of its files.

    Attributes:
        id: what the user calls it; of one file of a repository, the repository's id and the file.
        directory: the folder of the files that are on this disk.
        listing: the names of all its files; of a repository that is read offline, those in the
            hub's cache.
        revision: the commit of a hub repository.
        is_hub: whether it is a hub repository.
        remote: whether files can be fetched from the hub.
        file: the name of the one file that is the whole checkpoint, where it is a single file.
    """

    id: str
    directory: Path
    listing: frozenset[str]
    revision: str | None = None
    is_hub: bool = False
    remote: bool = False
    file: str | None = None

    @property
    def path(self) -> Path:
        """Where it is on this disk: its directory, or its one file."""
        return self.directory if self.file is None else self.directory / self.file

    @cached_property
    def header(self) -> Mapping[str, TensorRecord]:
        """The tensors of a single file, which is fetched. Raises what :func:`read_header` does."""
        assert self.file is not None, "a directory has no header"
        self.fetch([self.file])
        return read_header(self.path)

    @property
    def repository(self) -> str:
        """The id of the repository on the hub."""
        return self.id if self.file is None else self.id.removesuffix(f"/{self.file}")

    @property
    def source(self) -> str:
        """The checkpoint's name on a command line."""
        return self.id if self.is_hub else str(self.path)

    @property
    def is_cache_only(self) -> bool:
        """Whether the listing may lack files, which the hub has and its cache has not."""
        return self.is_hub and not self.remote

    def require(self, names: Collection[str]) -> None:
        """Check that the checkpoint has the files ``names``, here or on the hub.

        Raises:
            ModelError: some are missing; the message names them and the command that fetches them.
        """
        missing = sorted(set(names) - self.listing)
        if missing:
            raise ModelError(self._missing_message(missing))

    def fetch(self, names: Collection[str]) -> None:
        """Fetch those of the files ``names`` that are not on this disk.

        Raises:
            ModelError: some are missing, or the hub can't be reached.
        """
        self.require(names)
        if self.remote:
            from vinograph.models import hub

            assert self.revision is not None, "a repository of the hub has one"
            hub.fetch(self.repository, self.revision, names)

    def _missing_message(self, missing: Collection[str]) -> str:
        if not self.is_cache_only:
            return f"{self.id} lacks {', '.join(missing)}"
        revision = f" --revision {self.revision}" if self.revision else ""
        return (
            f"{self.id} is not whole in this machine's cache, and the hub was not asked or not reached. Missing: "
            f"{', '.join(missing)}. Online, fetch them with: "
            f"hf download {self.repository} {' '.join(missing)}{revision}"
        )

    def read_json(self, name: str) -> dict[str, Any]:
        """The contents of a configuration file, which must be a JSON object.

        Raises:
            ModelError: the checkpoint doesn't have the file.
            DamagedModelError: the file is not a JSON object.
        """
        self.fetch([name])
        file = self.directory / name
        try:
            return strict_json.read_object(file, largest=_LARGEST_CONFIG, infinity=True)
        except (OSError, strict_json.JsonError) as error:
            raise DamagedModelError(f"{file} is no configuration: {error}") from error

    def tensor_names(self, name: str) -> frozenset[str]:
        """The names of a safetensors file's tensors; only its header is read or fetched.

        Raises:
            ModelError: the file can't be read, or the hub stopped answering.
            DamagedModelError: the file is no safetensors file.
        """
        if self.file is not None:
            return frozenset(self.header)
        if not self.remote or (self.directory / name).is_file():
            return frozenset(read_header(self.directory / name))
        from vinograph.models import hub
        from vinograph.models.hub_errors import UnreachableError

        assert self.revision is not None, "a repository of the hub has one"
        try:
            return frozenset(hub.read_header(self.id, self.revision, name))
        except UnreachableError as error:
            raise ModelError(f"the hub stopped answering while {self.id} was looked at: {error}") from error

    def card(self) -> Mapping[str, str]:
        """The model card's front matter, as :func:`read_card` returns it; empty without a card."""
        if CARD_FILE not in self.listing:
            return {}
        self.fetch([CARD_FILE])
        return read_card(self.directory / CARD_FILE)

    def has_folder(self, folder: str) -> bool:
        """Whether any file lies in ``folder``."""
        return any(name.startswith(f"{folder}/") for name in self.listing)


@dataclass(frozen=True)
class Subfolder:
    """A folder of a checkpoint, which holds one part of it; "" is the top folder."""

    checkpoint: Checkpoint
    folder: str

    @property
    def directory(self) -> Path:
        """The folder's path on this disk."""
        return self.checkpoint.directory / self.folder

    def name(self, file: str) -> str:
        """The name that a file of the folder has in the checkpoint."""
        return f"{self.folder}/{file}" if self.folder else file

    def listing(self) -> frozenset[str]:
        """The names of the files in the folder."""
        prefix = self.name("")
        inside = {name.removeprefix(prefix) for name in self.checkpoint.listing if name.startswith(prefix)}
        return frozenset(name for name in inside if "/" not in name)

    def config(self, file: str = "config.json") -> dict[str, Any]:
        """The part's configuration, without the keys that diffusers lists in it as not set.

        Raises:
            ModelError: it is missing, or wants code of its own to be run.
            DamagedModelError: it is not a JSON object.
        """
        config = self.checkpoint.read_json(self.name(file))
        if "auto_map" in config:
            raise ModelError(f"{self.checkpoint.id}: {self.name(file)} asks for code of its own; Vinograph runs none")
        unset = config.pop("_use_default_values", []) if "_class_name" in config else []
        return {key: value for key, value in config.items() if not isinstance(unset, list) or key not in unset}

    def weight_paths(self, stem: str) -> list[Path]:
        """The files that hold the part's tensors: one, or the shards that an index names.

        Of several variants, one on this disk is taken before another is fetched. The order is that
        of :data:`~vinograph.models.safetensors.ON_DISK_ORDER` or ``DOWNLOAD_ORDER``.

        Args:
            stem: how the library names the files, "model" or "diffusion_pytorch_model".

        Raises:
            ModelError: there are no weights, or only pickled ones.
            DamagedModelError: the index of sharded weights is damaged.
        """
        origin = f"{self.checkpoint.id}, {self.folder or 'its top folder'}"
        order = DOWNLOAD_ORDER if self.checkpoint.remote else ON_DISK_ORDER
        chosen = self._cached_variant(stem) or choose_weights(self.listing(), stem, origin, order)
        if chosen.endswith(".json"):
            self.checkpoint.fetch([self.name(chosen)])
        return self._weights_of(chosen)

    def _cached_variant(self, stem: str) -> str | None:
        """The variant of a hub repository that is whole in the cache, if there is one."""
        if not self.checkpoint.is_hub:
            return None
        listing = self.listing()
        names = (name for variant in ON_DISK_ORDER for name in weight_names(stem, variant))
        fetched = (name for name in names if name in listing and (self.directory / name).is_file())
        return next((name for name in fetched if all(file.is_file() for file in self._weights_of(name))), None)

    def _weights_of(self, chosen: str) -> list[Path]:
        """The files of a variant: the chosen one, or the shards that it names as an index."""
        names = shards(self.directory / chosen) if chosen.endswith(".json") else [chosen]
        return [self.directory / name for name in names]


NeededFiles = Sequence[tuple[Checkpoint, Sequence[str]]]
"""The checkpoints that a model needs files of, each with the names of these files."""
BeforeFetch = Callable[[NeededFiles], None]


def do_nothing_before_fetch(_needed: NeededFiles) -> None:
    """A ``before_fetch`` that does nothing."""


def fetch_parts(
    subfolders: Mapping[str, Subfolder],
    files_of: Callable[[str, Subfolder], list[str]],
    before_fetch: BeforeFetch = do_nothing_before_fetch,
) -> list[Path]:
    """Fetch all files that the parts need, and return their paths.

    Args:
        subfolders: the folder of each part.
        files_of: names the files of a part within its folder. A config.json among them is checked
            first.
        before_fetch: called with all the files before any large one is fetched; it may raise.

    Raises:
        ModelError: a checkpoint lacks files, or a configuration wants code of its own to be run.
        DamagedModelError: a configuration is not JSON.
    """
    files = {part: files_of(part, subfolder) for part, subfolder in subfolders.items()}
    needed: dict[int, tuple[Checkpoint, list[str]]] = {}
    for part, subfolder in subfolders.items():
        names = needed.setdefault(id(subfolder.checkpoint), (subfolder.checkpoint, []))[1]
        names += [subfolder.name(file) for file in files[part]]
    for checkpoint, names in needed.values():
        checkpoint.require(names)
    for part, subfolder in subfolders.items():
        if "config.json" in files[part]:
            subfolder.config()
    before_fetch([*needed.values()])
    for checkpoint, names in needed.values():
        checkpoint.fetch(names)
    return sorted({checkpoint.directory / name for checkpoint, names in needed.values() for name in names})


def locate(source: str | Path, revision: str | None = None, *, single_file: bool = False) -> Checkpoint:
    """The checkpoint in a directory, or that of a hub id ("owner/name") at ``revision``.

    With ``single_file``, it may also be one file, on this disk or in a repository of the hub.

    Raises:
        RequestError: the source is neither, or it is a bundle already.
        ModelError: the hub doesn't have it, or can't be reached while it isn't in the cache.
    """
    path = folders.expand(source)
    if path.is_dir():
        if revision is not None:
            raise RequestError(f"--revision is for a repository of the hub, but {source} is a directory here")
        if (path / "bundle.json").is_file():
            raise RequestError(f"{source} is a bundle already: there is nothing to convert")
        return Checkpoint(_printable(path.resolve().name), path, list_files(path))
    if path.is_file():
        if revision is not None:
            raise RequestError(f"--revision is for a repository of the hub, but {source} is a file here")
        if single_file:
            return Checkpoint(_printable(path.stem), path.absolute().parent, frozenset({path.name}), file=path.name)
        raise ModelError(
            f"{source} is a single file. What is named here is a directory in diffusers' layout, with a "
            f"{INDEX_FILE}, or its id on the hub"
        )
    if single_file:
        from vinograph.models import hub_file

        if (named := hub_file.split(str(source))) is not None:
            return hub_file.locate_file(*named, revision)
    if not HUB_ID.fullmatch(str(source)):
        raise RequestError(f"{source} is neither a directory here nor the id of a hub repository (owner/name)")
    return on_hub(str(source), revision)


def on_hub(repository: str, revision: str | None) -> Checkpoint:
    """The repository as the hub has it now, or as the cache has it where the hub can't be reached.

    Raises:
        ModelError: it doesn't exist, isn't open to this user, or is neither reachable nor in the
            cache.
        ResourceError: the disk is full.
        RequestError: the hub's cache can't be written.
    """
    from vinograph.models import hub
    from vinograph.models.hub_errors import UnreachableError

    try:
        return from_repository(hub.look_up(repository, revision))
    except UnreachableError as error:
        return in_cache(repository, revision, error)


def from_repository(found: Repository) -> Checkpoint:
    """The checkpoint of a repository that was looked up; its index is fetched.

    Raises:
        ModelError: the hub stopped answering.
        ResourceError: the disk is full.
        RequestError: the hub's cache can't be written.
    """
    from vinograph.models import hub

    hub.fetch(found.id, found.commit, _FIRST_FETCHED & found.listing)
    return Checkpoint(found.id, found.folder, found.listing, found.commit, is_hub=True, remote=True)


def in_cache(repository: str, revision: str | None, reason: Exception) -> Checkpoint:
    """The checkpoint that the hub's cache has, where for ``reason`` the hub did not answer.

    Raises:
        ModelError: the cache has nothing of it, or several commits; the message says what to run.
    """
    from vinograph.models.hub_cache import cached_snapshots

    found = cached_snapshots(repository, revision)
    if len(found) > 1:
        commits = ", ".join(each.name for each in found)
        raise ModelError(
            f"the hub can't be reached ({reason}), and its cache has several commits of {repository}: "
            f"name one with --revision: {commits}"
        ) from reason
    if not found:
        option = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"{repository} is not in this machine's cache, not even its {INDEX_FILE}, and the hub can't be reached "
            f"({reason}). Online, fetch it with: hf download {repository}{option} --include {_PATTERNS}"
        ) from reason
    return Checkpoint(repository, found[0], list_files(found[0]), found[0].name, is_hub=True)


def _printable(name: str) -> str:
    """A folder's name as a manifest may hold it, since the name of a folder can be any bytes."""
    return "".join(letter if is_plain(letter) else "\ufffd" for letter in name)[:LONGEST_SCALAR] or "model"


def list_files(directory: Path) -> frozenset[str]:
    """The names of the files in a directory and its direct subfolders: "name" and "folder/name"."""
    names = [p for p in directory.glob("*") if p.is_file()] + [p for p in directory.glob("*/*") if p.is_file()]
    return frozenset(p.relative_to(directory).as_posix() for p in names)
