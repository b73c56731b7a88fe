"""Published checkpoints: a directory on this disk or a repository of the Hugging Face hub, read as data only.

Nothing is fetched before its family is known: first `model_index.json` alone, then what the family's converter
asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph import folders
from vinograph.convert.weights import choose_weights, shards
from vinograph.errors import DamagedModelError, ModelError, RequestError

INDEX_FILE = "model_index.json"
CARD_FILE = "README.md"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LARGEST_CONFIG = 10_000_000


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
            from vinograph.convert import hub

            hub.download(self.id, self.revision, names)

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
            if file.stat().st_size > _LARGEST_CONFIG:
                raise DamagedModelError(f"{file} is too large for a configuration")
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DamagedModelError(f"{file} is not JSON ({error})") from error
        if not isinstance(data, dict):
            raise DamagedModelError(f"{file} is not a JSON object")
        return data

    def card(self) -> dict[str, Any]:
        """The front matter of the model card; empty where there is none."""
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
        """The part's configuration.

        Raises:
            ModelError: it is missing, or asks for code of its own to run.
            DamagedModelError: it is not a JSON object.
        """
        config = self.checkpoint.read_json(self.name(file))
        if "auto_map" in config:
            raise ModelError(f"{self.checkpoint.id}: {self.name(file)} asks for code of its own; Vinograph runs none")
        return config

    def weight_files(self, stem: str) -> list[Path]:
        """The files that hold the part's tensors; sharded weights are followed through their index.

        ``stem`` is how they are named where they are, "model" or "diffusion_pytorch_model".

        Raises:
            ModelError: there are none, or only pickled ones.
            DamagedModelError: the index of sharded weights is damaged.
        """
        names = choose_weights(self.listing(), stem, f"{self.checkpoint.id}, {self.folder or 'its top folder'}")
        if names.endswith(".json"):
            self.checkpoint.fetch([self.name(names)])
            return [self.directory / each for each in shards(self.directory / names)]
        return [self.directory / names]


def fetch_parts(places: Mapping[str, Place], files_of: Callable[[str, Place], list[str]]) -> list[Path]:
    """Have every file that the parts need on this disk; those files.

    ``files_of`` names the files of a part within its folder. Where a config.json is among them, it is read before
    anything large is fetched.

    Raises:
        ModelError: naming those that a checkpoint lacks; or a configuration asks for code of its own.
        DamagedModelError: a configuration is not JSON.
    """
    wanted: dict[int, tuple[Checkpoint, list[str]]] = {}
    for part, place in places.items():
        names = wanted.setdefault(id(place.checkpoint), (place.checkpoint, []))[1]
        names += [place.name(file) for file in files_of(part, place)]
    for checkpoint, names in wanted.values():
        checkpoint.require(names)
    for part, place in places.items():
        if "config.json" in files_of(part, place):
            place.config()
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
        return Checkpoint(path.resolve().name, path, list_files(path))
    if path.is_file():
        raise ModelError(
            f"{source} is a single file. A checkpoint is a directory in diffusers' layout, with a {INDEX_FILE}, or its "
            "id on the hub"
        )
    if not _HUB_ID.fullmatch(str(source)):
        raise RequestError(f"{source} is neither a directory here nor the id of a hub repository (owner/name)")
    from vinograph.convert import hub

    return hub.locate(str(source), revision)


def list_files(directory: Path) -> frozenset[str]:
    """The files in a directory and in its folders, as "name" and "folder/name"; no deeper."""
    names = [p for p in directory.glob("*") if p.is_file()] + [p for p in directory.glob("*/*") if p.is_file()]
    return frozenset(p.relative_to(directory).as_posix() for p in names)


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
        if not isinstance(entry, list) or part.startswith("_"):
            continue
        pair = tuple(entry)
        if pair in ((None, None), ()):
            continue
        if pair not in list(known.get(part, ())):  # not a set's lookup: the file may hold what can't be hashed
            named = " of ".join(str(each) for each in reversed(pair))
            expected = ", ".join(sorted({name for _, name in known.get(part, ())})) or "no such part"
            raise ModelError(
                f"{origin}: {INDEX_FILE} gives the part {part} the class {named}, which Vinograph doesn't know "
                f"(known here: {expected}). It runs no code from checkpoints"
            )


def _front_matter(card: Path) -> dict[str, Any]:
    """The YAML between the two `---` lines that a model card starts with; empty if it can't be read."""
    import yaml  # type: ignore[import-untyped]

    try:
        text = card.read_text(encoding="utf-8")
        found = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
        data = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}


def licence_of(card: Mapping[str, Any]) -> str | None:
    """The licence that a card's front matter names."""
    licence = card.get("license")
    if licence == "other":
        licence = card.get("license_name", licence)
    return str(licence) if isinstance(licence, str) else None
