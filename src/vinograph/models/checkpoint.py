"""Published checkpoints: a directory on this disk or a repository of the Hugging Face hub, read as data only.

Nothing is fetched before its family is known: first `model_index.json` alone, then what the family's converter
asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from vinograph import folders, strict_json
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.models.safetensors import (
    DOWNLOAD_ORDER,
    ON_DISK_ORDER,
    choose_weights,
    read_header,
    shards,
    weight_names,
)
from vinograph.schema import is_plain, label
from vinograph.values import shown

if TYPE_CHECKING:
    from vinograph.models.hub import Repository

INDEX_FILE = "model_index.json"
CARD_FILE = "README.md"
# What any of our families may need; a cache without even the index can't say which.
_PATTERNS = '"*.json" "*.txt" "*.model" "*.safetensors" "README.md" "LICENSE*"'
_FIRST = {INDEX_FILE, "vinograph.json"}
CARD_KEYS = ("license", "license_name", "prior")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LARGEST_CONFIG = 10_000_000
_LARGEST_CARD = 4_000_000
_CARD_LINE = re.compile(r"(license|license_name|prior):[ \t]*(.*)")
_LONGEST_SCALAR = 200
_NO_SCALAR = "[]{}&*!|>%@`#,-?:"  # what begins other things in YAML, or nothing
_CARD_ENTRY = re.compile(r"[ \t]*-[ \t]+(.*)")


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint is, and the names of the files that it has.

    ``id`` is what the user calls it. For a hub repository ``revision`` is the commit, and ``remote`` says that files
    have still to be fetched; a repository read offline is its part that is in the hub's cache.
    """

    id: str
    directory: Path
    listing: frozenset[str]
    revision: str | None = None
    is_hub: bool = False
    remote: bool = False

    @property
    def source(self) -> str:
        """How a command line names it."""
        return self.id if self.is_hub else str(self.directory)

    @property
    def is_partial(self) -> bool:
        """Whether there may be files that the listing doesn't have: those that the hub has and its cache has not."""
        return self.is_hub and not self.remote

    def require(self, names: Collection[str]) -> None:
        """Check that the checkpoint has ``names``, here or on the hub.

        Raises:
            ModelError: some are missing, naming all of them and the command that fetches them.
        """
        missing = sorted(set(names) - self.listing)
        if missing:
            raise ModelError(self._lacks(missing))

    def fetch(self, names: Collection[str]) -> None:
        """Have ``names`` on this disk.

        Raises:
            ModelError: some are missing, or the hub can't be reached.
        """
        self.require(names)
        if self.remote:
            from vinograph.models import hub

            assert self.revision is not None, "a repository of the hub has one"
            hub.fetch(self.id, self.revision, names)

    def _lacks(self, missing: Collection[str]) -> str:
        if not self.is_partial:
            return f"{self.id} lacks {', '.join(missing)}"
        revision = f" --revision {self.revision}" if self.revision else ""
        return (
            f"{self.id} is not whole in this machine's cache, and the hub was not asked or not reached. Missing: "
            f"{', '.join(missing)}. Online, fetch them with: hf download {self.id} {' '.join(missing)}{revision}"
        )

    def read_json(self, name: str) -> dict[str, Any]:
        """A configuration file, which must hold a JSON object.

        Raises:
            ModelError: the checkpoint doesn't have it.
            DamagedModelError: it is something else.
        """
        self.fetch([name])
        file = self.directory / name
        try:
            return strict_json.read_object(file, largest=_LARGEST_CONFIG, infinity=True)
        except (OSError, strict_json.JsonError) as error:
            raise DamagedModelError(f"{file} is no configuration: {error}") from error

    def tensor_names(self, name: str) -> frozenset[str]:
        """The names of the tensors in a safetensors file, of which the header alone is read or fetched.

        Raises:
            ModelError: it can't be read, or the hub stopped answering.
            DamagedModelError: it is no such file.
        """
        if not self.remote or (self.directory / name).is_file():
            return frozenset(read_header(self.directory / name))
        from vinograph.models import hub

        assert self.revision is not None, "a repository of the hub has one"
        return hub.tensor_names(self.id, self.revision, name)

    def card(self) -> Mapping[str, str]:
        """What the front matter of the model card says under :data:`CARD_KEYS`; empty where it says nothing."""
        if CARD_FILE not in self.listing:
            return {}
        self.fetch([CARD_FILE])
        return _front_matter(self.directory / CARD_FILE)

    def has_folder(self, folder: str) -> bool:
        """Whether any file lies in ``folder``."""
        return any(name.startswith(f"{folder}/") for name in self.listing)


@dataclass(frozen=True)
class Place:
    """One part of a model: its checkpoint and the folder in it ("" for the top)."""

    checkpoint: Checkpoint
    folder: str

    @property
    def directory(self) -> Path:
        """The folder on this disk."""
        return self.checkpoint.directory / self.folder

    def name(self, file: str) -> str:
        """The name of a file of the part within the checkpoint."""
        return f"{self.folder}/{file}" if self.folder else file

    def listing(self) -> frozenset[str]:
        """The names of the files in the folder."""
        prefix = self.name("")
        inside = {name.removeprefix(prefix) for name in self.checkpoint.listing if name.startswith(prefix)}
        return frozenset(name for name in inside if "/" not in name)

    def config(self, file: str = "config.json") -> dict[str, Any]:
        """The part's configuration; without what diffusers notes in it as not set, which it leaves out, too.

        Raises:
            ModelError: it is missing, or asks for code of its own to run.
            DamagedModelError: it is not a JSON object.
        """
        config = self.checkpoint.read_json(self.name(file))
        if "auto_map" in config:
            raise ModelError(f"{self.checkpoint.id}: {self.name(file)} asks for code of its own; Vinograph runs none")
        unset = config.pop("_use_default_values", []) if "_class_name" in config else []
        return {key: value for key, value in config.items() if not isinstance(unset, list) or key not in unset}

    def weight_files(self, stem: str) -> list[Path]:
        """The files that hold the part's tensors; sharded weights are followed through their index.

        Of several variants, one that is on this disk is read before another is fetched, as
        :data:`~vinograph.models.safetensors.ON_DISK_ORDER` and ``DOWNLOAD_ORDER`` say. ``stem`` is how the files are
        named, "model" or "diffusion_pytorch_model".

        Raises:
            ModelError: there are none, or only pickled ones.
            DamagedModelError: the index of sharded weights is damaged.
        """
        origin = f"{self.checkpoint.id}, {self.folder or 'its top folder'}"
        order = DOWNLOAD_ORDER if self.checkpoint.remote else ON_DISK_ORDER
        chosen = self._fetched_weights(stem) or choose_weights(self.listing(), stem, origin, order)
        if chosen.endswith(".json"):
            self.checkpoint.fetch([self.name(chosen)])
        return self._weights_of(chosen)

    def _fetched_weights(self, stem: str) -> str | None:
        """The variant of a hub's repository that is whole in its cache, so that nothing need be fetched."""
        if not self.checkpoint.is_hub:
            return None
        listing = self.listing()
        names = (name for variant in ON_DISK_ORDER for name in weight_names(stem, variant))
        fetched = (name for name in names if name in listing and (self.directory / name).is_file())
        return next((name for name in fetched if all(file.is_file() for file in self._weights_of(name))), None)

    def _weights_of(self, chosen: str) -> list[Path]:
        """The files of a variant: the one that was chosen, or those that its index names."""
        names = shards(self.directory / chosen) if chosen.endswith(".json") else [chosen]
        return [self.directory / name for name in names]


Needed = Sequence[tuple[Checkpoint, Sequence[str]]]
"""The files that a model needs, by the checkpoints that have them."""
BeforeFetch = Callable[[Needed], None]


def nothing_before(_needed: Needed) -> None:
    """Fetch at once."""


def fetch_parts(
    places: Mapping[str, Place],
    files_of: Callable[[str, Place], list[str]],
    before_fetch: BeforeFetch = nothing_before,
) -> list[Path]:
    """Have every file that the parts need on this disk; those files.

    ``files_of`` names the files of a part within its folder. Where a config.json is among them, it is read before
    anything large is fetched. ``before_fetch`` is then called with all of the files, and may raise.

    Raises:
        ModelError: naming those that a checkpoint lacks; or a configuration asks for code of its own.
        DamagedModelError: a configuration is not JSON.
    """
    files = {part: files_of(part, place) for part, place in places.items()}
    wanted: dict[int, tuple[Checkpoint, list[str]]] = {}
    for part, place in places.items():
        names = wanted.setdefault(id(place.checkpoint), (place.checkpoint, []))[1]
        names += [place.name(file) for file in files[part]]
    for checkpoint, names in wanted.values():
        checkpoint.require(names)
    for part, place in places.items():
        if "config.json" in files[part]:
            place.config()
    before_fetch([*wanted.values()])
    for checkpoint, names in wanted.values():
        checkpoint.fetch(names)
    return sorted({checkpoint.directory / name for checkpoint, names in wanted.values() for name in names})


def locate(source: str | Path, revision: str | None = None) -> Checkpoint:
    """Find a checkpoint: a directory, or a hub id ("owner/name") at ``revision``.

    Raises:
        RequestError: it is neither, or it is a bundle already.
        ModelError: the hub doesn't have it, or can't be reached and it isn't in the cache.
    """
    path = folders.expand(source)
    if path.is_dir():
        if revision is not None:
            raise RequestError(f"--revision is for a repository of the hub, but {source} is a directory here")
        if (path / "bundle.json").is_file():
            raise RequestError(f"{source} is a bundle already: there is nothing to convert")
        return Checkpoint(_printable(path.resolve().name), path, list_files(path))
    if path.is_file():
        raise ModelError(
            f"{source} is a single file. A checkpoint is a directory in diffusers' layout, with a {INDEX_FILE}, or its "
            "id on the hub"
        )
    if not HUB_ID.fullmatch(str(source)):
        raise RequestError(f"{source} is neither a directory here nor the id of a hub repository (owner/name)")
    return on_hub(str(source), revision)


def on_hub(repository: str, revision: str | None) -> Checkpoint:
    """The repository as the hub has it now, or, where the hub can't be reached, as its cache on this disk has it.

    Raises:
        ModelError: it doesn't exist or isn't open to this user; or it is in neither place, naming what to run.
        ResourceError: the disk is full.
        RequestError: the hub's cache can't be written.
    """
    from vinograph.models import hub

    try:
        return of_repository(hub.look_up(repository, revision))
    except hub.UnreachableError as error:
        return in_cache(repository, revision, error)


def of_repository(found: Repository) -> Checkpoint:
    """A repository that was looked up on the hub, its configuration and its card fetched.

    Raises:
        ModelError: the hub stopped answering.
        ResourceError: the disk is full.
        RequestError: the hub's cache can't be written.
    """
    from vinograph.models import hub

    hub.fetch(found.id, found.commit, _FIRST & found.listing)
    return Checkpoint(found.id, found.folder, found.listing, found.commit, is_hub=True, remote=True)


def in_cache(repository: str, revision: str | None, reason: Exception) -> Checkpoint:
    """What the hub's cache has of a repository, for ``reason`` the hub wasn't asked or didn't answer.

    Raises:
        ModelError: it has nothing of it, or several commits, naming what to run.
    """
    from vinograph.models import hub

    found = hub.cached(repository, revision)
    if len(found) > 1:
        commits = ", ".join(each.name for each in found)
        raise ModelError(
            f"the hub can't be reached ({reason}), and its cache has several commits of {repository}: "
            f"name one with --revision: {commits}"
        ) from reason
    if not found:
        wanted = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"{repository} is not in this machine's cache, not even its {INDEX_FILE}, and the hub can't be reached "
            f"({reason}). Online, fetch it with: hf download {repository}{wanted} --include {_PATTERNS}"
        ) from reason
    return Checkpoint(repository, found[0], list_files(found[0]), found[0].name, is_hub=True)


def _printable(name: str) -> str:
    """The name of a folder, as a manifest may hold it: any bytes will do for a folder."""
    return "".join(letter if is_plain(letter) else "\ufffd" for letter in name)[:_LONGEST_SCALAR] or "model"


def list_files(directory: Path) -> frozenset[str]:
    """The files in a directory and in its folders, as "name" and "folder/name"; no deeper."""
    names = [p for p in directory.glob("*") if p.is_file()] + [p for p in directory.glob("*/*") if p.is_file()]
    return frozenset(p.relative_to(directory).as_posix() for p in names)


def require_parts(index: Mapping[str, Any], parts: Collection[str], origin: str) -> None:
    """Check that a model_index.json names each of ``parts``.

    Raises:
        ModelError: naming the first that it doesn't.
    """
    for part in parts:
        if index.get(part) in (None, [None, None], []):
            raise ModelError(f"{origin}: {INDEX_FILE} names no {part}, without which Vinograph can't draw")


def check_classes(index: Mapping[str, Any], known: Mapping[str, Collection[tuple[str, str]]], origin: str) -> None:
    """Compare the classes that a model_index.json names with our own table. They are names to us, nothing is imported.

    Args:
        index: the file's contents.
        known: for each part, the pairs of library and class that we have an implementation of.
        origin: the checkpoint's name for errors.

    Raises:
        ModelError: naming the first part whose library or class we don't know.
    """
    for part, entry in index.items():
        if part in known and not isinstance(entry, list | NoneType):
            raise ModelError(f"{origin}: {INDEX_FILE} gives the part {part} {shown(entry)}, not a library and a class")
        if not isinstance(entry, list) or part.startswith("_"):
            continue
        pair = tuple(entry)
        if pair in ((None, None), ()):
            continue
        if pair not in list(known.get(part, ())):  # not a set's lookup: the file may hold what can't be hashed
            named = " of ".join(label(each) for each in reversed(pair[:2]))
            expected = ", ".join(sorted({name for _, name in known.get(part, ())})) or "no such part"
            raise ModelError(
                f"{origin}: {INDEX_FILE} gives the part {label(part)} the class {named}, which Vinograph doesn't know "
                f"(known here: {expected}). It runs no code from checkpoints"
            )


def _front_matter(card: Path) -> dict[str, str]:
    """The values of :data:`CARD_KEYS` between the two `---` lines that a model card starts with.

    They are words on the key's own line, or the first entry of a list. Only these lines are read, not YAML in general,
    whose nesting and references can cost any amount of time.
    """
    with card.open("rb") as file:
        lines = file.read(_LARGEST_CARD).decode("utf-8", "replace").lstrip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    found: dict[str, str] = {}
    ends = next((index for index, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    for index, line in enumerate(lines[1:ends], 1):
        if match := _CARD_LINE.fullmatch(line.rstrip()):
            entry = None if match[2] else _CARD_ENTRY.fullmatch(lines[index + 1].rstrip())
            value = _scalar(entry[1] if entry else match[2])
            if value is not None:
                found[match[1]] = value
    return found


def _scalar(text: str) -> str | None:
    """A short YAML scalar, or the first of a list in brackets; None of what is neither."""
    if text.startswith("["):
        text = text[1:].partition("]")[0].partition(",")[0].strip()
    if text[:1] in ("'", '"'):
        text = text[1:].partition(text[0])[0]
    else:
        text = re.split(r"[ \t]#", text, maxsplit=1)[0].strip()
    plain = text not in ("", "~", "null") and text[0] not in _NO_SCALAR and is_plain(text)
    return text if plain and len(text) <= _LONGEST_SCALAR else None


def licence_of(card: Mapping[str, str]) -> str | None:
    """The licence that a card's front matter names."""
    licence = card.get("license")
    return card.get("license_name", licence) if licence == "other" else licence


def scheduler_config(place: Place, index: Mapping[str, Any], part: str = "scheduler") -> dict[str, Any]:
    """A scheduler's configuration, under the class that the model_index.json names for ``part``.

    That is the class that diffusers makes, of the settings in the scheduler's own file, whatever class wrote them.

    Raises:
        ModelError: the configuration is missing.
        DamagedModelError: it is not a JSON object.
    """
    config = place.config("scheduler_config.json")
    config.pop("class", None)  # the key of our own manifests, which a published file doesn't have
    return {**config, "_class_name": index[part][1]}
