"""What is kept between processes: compiled components, and which settings were measured to be the fastest.

A compiled component is what OpenVINO exports without its weights, which it reads from the bundle again: a tenth of
them or less. Where that can't be, or doesn't pay, it is what OpenVINO exports with them: as much as they are, under a
limit of its own. Each is a file of its own, which is written under another name and renamed; the file's time of change
is when it was last used. Nothing that is wrong with the folder stops a drawing: it is noted, and goes on without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from vinograph import folders, strict_json
from vinograph.errors import RequestError
from vinograph.files import temporary_sibling, write_atomically
from vinograph.runtime import mapped_blob
from vinograph.runtime.mapped_blob import LONGEST_HEAD, Export

_LIMIT = 1_000_000_000
_SHARE_OF_FREE = 20
_LIMIT_WITH_WEIGHTS = 10_000_000_000
_SHARE_OF_FREE_WITH_WEIGHTS = 10
_IN_USE = 3600  # seconds for which what has its weights with it isn't thrown out for another, which is slow to write
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_FORMAT = 1
_ABANDONED = 3600  # seconds after which a file under its temporary name is of a process that was killed
_PATIENCE = 5  # seconds to wait for another process to have written the settings
_ABSENT = (FileNotFoundError, NotADirectoryError)  # the latter below a file, or the home that nobody has
_LONGEST_NAME = 1000  # characters of what a record says for people
_WITH_WEIGHTS = ".weights"  # how the stem of a file ends that holds them

_log = logging.getLogger("vinograph")


def folder() -> Path:
    """``VINOGRAPH_CACHE``, else ``vinograph`` in ``XDG_CACHE_HOME``, else ``~/.cache/vinograph``."""
    return folders.cache()


def parse_size(text: str, name: str = "--limit") -> int:
    """Bytes of a size such as 5GB, 500 MB or 0; ``name`` says in the error where it was told.

    Raises:
        RequestError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].upper() not in _UNITS:
        raise RequestError(f"{name} is {text[:40]!r}; give one such as 5GB, 500MB or 0")
    size = float(found[1]) * _UNITS[found[2].upper()]
    if size > 2**63:
        raise RequestError(f"{name} is more than any disk holds; give a size such as 5GB, 500MB or 0")
    return int(size)


@dataclass(frozen=True)
class About:
    """What a compiled component, or a measured setting, is of: for people."""

    model: str
    component: str
    shapes: str

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> About:
        """Of a record that holds this and more; what is no short line of text is left out."""
        return cls(*(_line(record.get(name)) for name in ("model", "component", "shapes")))


@dataclass(frozen=True)
class Entry:
    """A compiled component: its file, size in bytes, and when it was used last, in seconds of the epoch."""

    file: Path
    size: int
    used: float
    about: About

    @property
    def with_weights(self) -> bool:
        """Whether the component's weights are in the file."""
        return self.file.stem.endswith(_WITH_WEIGHTS)


class Cache:
    """The folder. It is made when something is first written."""

    def __init__(self, place: Path | None = None) -> None:
        self.folder = folder() if place is None else place
        self._compiled = self.folder / "compiled"
        self._settings = self.folder / "settings.json"
        self._notes: list[str] = []
        self._told: set[str] = set()
        self._disabled = False
        self._unwritten: dict[str, dict[str, Any]] = {}

    def note(self, text: str) -> None:
        """Have a warning told, once."""
        if text not in self._told:
            self._told.add(text)
            self._notes.append(text)

    def take_notes(self) -> list[str]:
        """The warnings since the last time."""
        notes, self._notes = self._notes, []
        return notes

    @property
    def limit(self) -> int:
        """Bytes that compiled components may take: ``VINOGRAPH_CACHE_LIMIT``, else what was set, else the default.

        That is for those without weights alone: 1 GB, or a twentieth of what the disk has free if that is less.
        """
        told = self._told_limit()
        return self._share(_LIMIT, _SHARE_OF_FREE) if told is None else told

    @property
    def limit_with_weights(self) -> int:
        """Bytes that compiled components with their weights may take.

        Where a limit was set, it is what those without leave of it. Else it is 10 GB, or a tenth of what the disk has
        free if that is less.
        """
        told = self._told_limit()
        if told is None:
            return self._share(_LIMIT_WITH_WEIGHTS, _SHARE_OF_FREE_WITH_WEIGHTS)
        return max(0, told - sum(entry.size for entry in self.entries() if not entry.with_weights))

    def _told_limit(self) -> int | None:
        """The limit to all that is compiled, from the environment or the folder; None where none was set."""
        told = os.environ.get("VINOGRAPH_CACHE_LIMIT")
        if told:
            return parse_size(told, "VINOGRAPH_CACHE_LIMIT")
        with contextlib.suppress(OSError, ValueError, RequestError), (self.folder / "limit").open("rb") as file:
            return parse_size(file.read(100).decode())
        return None

    def _share(self, most: int, part: int) -> int:
        """The ``part``-th part of what the disk would have free without what is compiled, or ``most`` if that is less.

        0 where no disk is found.
        """
        for place in (self.folder, *self.folder.absolute().parents):
            with contextlib.suppress(OSError):  # of a folder that isn't there, or may not be looked into
                return min(most, (shutil.disk_usage(place).free + self.size()) // part)
        return 0

    def set_limit(self, size: int) -> None:
        """Remember the limit in the folder, and keep it.

        Raises:
            OSError: the folder can't be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "limit", f"{size}\n".encode())
        self._evict()

    def get(self, key: str) -> bytes | None:
        """A compiled component, as it was kept; None where there is none or it is damaged."""
        file = self._compiled / f"{key}.blob"
        try:
            content = file.read_bytes()
        except _ABSENT:
            return None
        except OSError as error:
            self.note(f"{file} in the cache can't be read ({error.strerror}); compiled anew")
            return None
        head, _, payload = content.partition(b"\n")
        if _head(head).get("sha256") != hashlib.sha256(payload).hexdigest():
            self.drop(key, "it was damaged")
            return None
        with contextlib.suppress(OSError):  # of a folder that is there to be read only
            os.utime(file)
        return payload

    def drop(self, key: str, why: str) -> None:
        """Throw a compiled component away, and say so."""
        file = self._compiled / f"{key}.blob"
        self.note(f"{file} in the cache was of no use: {why}; compiled anew")
        with contextlib.suppress(OSError):
            file.unlink()

    def wants(self) -> bool:
        """Whether compiled components are kept at all."""
        return not self._disabled and self.limit > 0

    def put(self, key: str, payload: bytes, about: About) -> None:
        """Keep a compiled component, and throw out those that were not used longest if there are too many."""
        record = {**vars(about), "sha256": hashlib.sha256(payload).hexdigest()}
        content = json.dumps(record).encode() + b"\n" + payload
        limit = self.limit
        if len(content) > limit:
            return
        try:
            self._compiled.mkdir(parents=True, exist_ok=True)
            write_atomically(self._compiled / f"{key}.blob", content)
            self._evict()
        except OSError as error:
            self._disabled = True
            self.note(self._unwritable(error))

    def _unwritable(self, error: OSError) -> str:
        return (
            f"the cache in {self.folder} can't be written ({error.strerror}), so that models are compiled anew in "
            "each process; VINOGRAPH_CACHE names another folder, VINOGRAPH_CACHE_LIMIT=0 does without"
        )

    def map_with_weights(self, key: str) -> NDArray[np.uint8] | None:
        """A compiled component with its weights, mapped from its file; None where there is none or it is damaged."""
        file = self.file_with_weights(key)
        try:
            content = mapped_blob.read(file)
        except _ABSENT:
            return None
        except OSError as error:
            self.note(f"{file} in the cache can't be read ({error.strerror}); compiled anew")
            return None
        except mapped_blob.DamagedError:
            self.drop(file.stem, "it was damaged")
            return None
        with contextlib.suppress(OSError):  # of a folder that is there to be read only
            os.utime(file)
        return content

    def file_with_weights(self, key: str) -> Path:
        """Where a compiled component lies if it is kept with its weights."""
        return self._compiled / f"{key}{_WITH_WEIGHTS}.blob"

    def wants_with_weights(self, size: int) -> bool:
        """Whether a compiled component with weights of ``size`` bytes would be kept."""
        return not self._disabled and size <= self._room_with_weights()

    def put_with_weights(self, key: str, export: Export, about: About) -> None:
        """Keep a compiled component with its weights, which ``export`` writes to a stream.

        One process writes at a time, and another doesn't wait for it: what it leaves out, a later one will keep. Nobody
        is there any more to be told of what fails in the result of a drawing, so it is logged.
        """
        file, most = self.file_with_weights(key), self._room_with_weights()
        try:
            self._compiled.mkdir(parents=True, exist_ok=True)
            with FileLock(self._compiled / "writing.lock", timeout=0):
                for left in self._compiled.glob(f".*{_WITH_WEIGHTS}.blob.*.tmp"):  # by processes that were killed
                    left.unlink(missing_ok=True)
                if file.exists():
                    return
                with temporary_sibling(file) as temporary:
                    mapped_blob.write(temporary, vars(about), export, most)
                    self._make_room(temporary.stat().st_size)
                    temporary.replace(file)
        except (
            Timeout,
            mapped_blob.TooLargeError,
            FileNotFoundError,
        ):  # the last where the cache was cleared meanwhile
            return
        except OSError as error:
            self._disabled = True
            _log.warning(self._unwritable(error))

    def entries(self) -> list[Entry]:
        """The compiled components, from the one used last."""
        found = []
        for file in self._files():
            with contextlib.suppress(OSError):
                stat = file.stat()
                with file.open("rb") as stream:
                    about = About.read(_head(stream.readline(LONGEST_HEAD)))
                found.append(Entry(file, stat.st_size, stat.st_mtime, about))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def size(self) -> int:
        """Bytes that compiled components take."""
        total = 0
        for file in self._files():
            with contextlib.suppress(OSError):
                total += file.stat().st_size
        return total

    def clear(self) -> None:
        """Throw away what is compiled and what was measured; the limit stays.

        Raises:
            OSError: the folder can't be written.
        """
        if self._compiled.is_dir():
            for file in self._compiled.iterdir():
                file.unlink(missing_ok=True)
        with contextlib.suppress(*_ABSENT):
            self._settings.unlink()

    def settings(self) -> dict[str, dict[str, Any]]:
        """What is remembered of settings, by key: records of what was measured, or of what it would take."""
        return {**self._read_settings(), **self._unwritten}

    def _read_settings(self) -> dict[str, dict[str, Any]]:
        try:
            content = strict_json.read_object(self._settings)
        except _ABSENT:
            return {}
        except (OSError, strict_json.JsonError) as error:
            self.note(f"{self._settings} can't be read ({error}); settings are measured anew")
            return {}
        known = content.get("settings") if content.get("format") == _FORMAT else None
        if not isinstance(known, dict):
            self.note(f"{self._settings} is not a file of settings that this version reads; they are measured anew")
            return {}
        return {key: record for key, record in known.items() if isinstance(record, dict)}

    def remember(self, key: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Replace the record of a setting by what ``change`` makes of it, and return that; one process at a time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "settings.lock", timeout=_PATIENCE):
                known = self.settings()
                record = change(known.get(key, {}))
                told = json.dumps({"format": _FORMAT, "settings": {**known, key: record}}, indent=1)
                write_atomically(self._settings, told.encode())
                return record
        except (OSError, Timeout) as error:
            self.note(f"the fastest settings can't be remembered in {self.folder} ({error})")
            self._unwritten[key] = change(self._unwritten.get(key, {}))
            return self._unwritten[key]

    def _files(self) -> list[Path]:
        """The compiled components; none where the folder is missing or may not be looked into."""
        try:
            return [each for each in self._compiled.iterdir() if each.suffix == ".blob"]
        except OSError:
            return []

    def _room_with_weights(self) -> int:
        """Bytes that a component with its weights may have, so that none goes for it that is in use."""
        newest = time.time() - _IN_USE
        in_use = sum(entry.size for entry in self.entries() if entry.with_weights and entry.used > newest)
        return self.limit_with_weights - in_use

    def _make_room(self, size: int) -> None:
        """Throw out components with their weights, from the one that was not used longest, until ``size`` more fit."""
        _throw_out([entry for entry in self.entries() if entry.with_weights], self.limit_with_weights - size)

    def _evict(self) -> None:
        """Keep the limits. Those with weights go before those without, which are worth more for their size."""
        for left in self._compiled.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < time.time() - _ABANDONED:
                    left.unlink()
        self._make_room(0)
        _throw_out([entry for entry in self.entries() if not entry.with_weights], self.limit)


def _throw_out(kept: list[Entry], limit: int) -> None:
    """Delete the last of ``kept`` until those that are left take at most ``limit`` bytes."""
    total = sum(entry.size for entry in kept)
    while kept and total > limit:
        oldest = kept.pop()
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            oldest.file.unlink()
        total -= oldest.size


def _head(line: bytes) -> dict[str, Any]:
    """What the first line of a file says; nothing where it is damaged."""
    try:
        return strict_json.parse_object(line, largest=LONGEST_HEAD)
    except strict_json.JsonError:
        return {}


def _line(value: Any) -> str:
    """A record's text for people; nothing of what is no text, or would not fit a line of a terminal."""
    return value if isinstance(value, str) and len(value) <= _LONGEST_NAME and value.isprintable() else ""
