"""The cache between processes: compiled components, and which settings are the fastest.

A compiled component is usually exported without its weights, which OpenVINO reads from the bundle
again. Such an export has a tenth of their size or less. Where that can't be done or doesn't pay,
the export holds the weights, under a limit of its own. Each export is a file, written under another
name and renamed. Its time of change is when it was last used.

Nothing that is wrong with the folder stops a drawing: it goes on without the cache, with a warning.
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
from vinograph.files import check_writable, temporary_sibling, write_atomically
from vinograph.runtime import mapped_blob
from vinograph.runtime.compiled_files import WITH_WEIGHTS, CompiledFile, compiled_files, delete_oldest
from vinograph.runtime.mapped_blob import LONGEST_HEAD, Export

_LIMIT = 1_000_000_000
_SHARE_OF_FREE = 20  # the limit is at most this part of what the disk has free
_LIMIT_WITH_WEIGHTS = 10_000_000_000
_SHARE_OF_FREE_WITH_WEIGHTS = 10
_IN_USE = 3600  # seconds for which a used export with weights isn't evicted: it is slow to write
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_FORMAT = 1
SETTINGS = "settings"
"""The section of the settings that were measured to be the fastest."""
_ABANDONED = 3600  # seconds after which a temporary file is one of a killed process
_PATIENCE = 5  # seconds to wait for another process that is writing the settings
_ABSENT = (FileNotFoundError, NotADirectoryError)  # the latter below a file
_MEASURE_AGAIN = "settings have to be measured again, by `vinograph tune`"
_LONGEST_NAME = 1000  # characters of a text in a description

_log = logging.getLogger("vinograph")


def folder() -> Path:
    """The folder of the cache.

    It is VINOGRAPH_CACHE, else ``vinograph`` in XDG_CACHE_HOME, else ``~/.cache/vinograph``.
    """
    return folders.cache()


def parse_size(text: str, name: str = "--limit") -> int:
    """Bytes of a size such as 5GB, 500 MB or 0. Errors call it ``name``.

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
class Description:
    """What a compiled component or a measured setting belongs to, for people."""

    model: str
    component: str
    shapes: str

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Description:
        """From a record that holds this and more; a value that is no short text becomes empty."""
        return cls(*(_line(record.get(name)) for name in ("model", "component", "shapes")))


@dataclass(frozen=True)
class Entry(CompiledFile):
    """A compiled component with what it belongs to."""

    description: Description


class Cache:
    """The cache in one folder, which is made when something is first written."""

    def __init__(self, place: Path | None = None) -> None:
        self.folder = folder() if place is None else place
        self._compiled = self.folder / "compiled"
        self._settings = self.folder / "settings.json"
        self._warnings: list[str] = []
        self._warned: set[str] = set()
        self._disabled = False
        self._unwritten: dict[str, dict[str, dict[str, Any]]] = {}

    def add_warning(self, text: str) -> None:
        """Add a warning, unless it was added before."""
        if text not in self._warned:
            self._warned.add(text)
            self._warnings.append(text)

    def take_warnings(self) -> list[str]:
        """The warnings since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    @property
    def limit(self) -> int:
        """Bytes that compiled components may take.

        That is VINOGRAPH_CACHE_LIMIT, else the limit that was set, else the default. The default is
        for exports without weights alone: 1 GB, or a twentieth of the free disk if that is less.
        """
        configured = self._configured_limit()
        return self._share(_LIMIT, _SHARE_OF_FREE) if configured is None else configured

    @property
    def limit_with_weights(self) -> int:
        """Bytes that exports with weights may take.

        Where a limit was set, that is what exports without weights leave of it. The default is 10
        GB, or a tenth of the free disk if that is less.
        """
        configured = self._configured_limit()
        if configured is None:
            return self._share(_LIMIT_WITH_WEIGHTS, _SHARE_OF_FREE_WITH_WEIGHTS)
        return max(0, configured - sum(each.size for each in self._files() if not each.with_weights))

    def _configured_limit(self) -> int | None:
        """The limit for all exports, from the environment or the folder; None if none was set."""
        limit = os.environ.get("VINOGRAPH_CACHE_LIMIT")
        if limit:
            return parse_size(limit, "VINOGRAPH_CACHE_LIMIT")
        with contextlib.suppress(OSError, ValueError, RequestError), (self.folder / "limit").open("rb") as file:
            return parse_size(file.read(100).decode())
        return None

    def _share(self, most: int, part: int) -> int:
        """The smaller of ``most`` bytes and a ``part``-th of the free disk; 0 if no disk is found.

        What exports take counts as free.
        """
        for place in (self.folder, *self.folder.absolute().parents):
            with contextlib.suppress(OSError):  # the folder isn't there, or may not be looked into
                return min(most, (shutil.disk_usage(place).free + self.size()) // part)
        return 0

    def set_limit(self, size: int) -> None:
        """Store the limit in the folder, and delete what exceeds it.

        Raises:
            OSError: the folder can't be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "limit", f"{size}\n".encode())
        self._evict()

    def get(self, key: str) -> bytes | None:
        """The compiled component kept under ``key``; None where there is none or it is damaged."""
        file = self._compiled / f"{key}.blob"
        try:
            content = file.read_bytes()
        except _ABSENT:
            return None
        except OSError as error:
            self.add_warning(f"{file} in the cache can't be read ({error.strerror}); compiled anew")
            return None
        head, _, payload = content.partition(b"\n")
        if _head(head).get("sha256") != hashlib.sha256(payload).hexdigest():
            self.discard(key, "it was damaged")
            return None
        with contextlib.suppress(OSError):  # the folder can only be read
            os.utime(file)
        return payload

    def discard(self, key: str, why: str) -> None:
        """Delete a compiled component, with a warning that says why."""
        file = self._compiled / f"{key}.blob"
        self.add_warning(f"{file} in the cache was of no use: {why}; compiled anew")
        with contextlib.suppress(OSError):
            file.unlink()

    def is_enabled(self) -> bool:
        """Whether compiled components are kept at all."""
        return not self._disabled and self.limit > 0

    def put(self, key: str, payload: bytes, description: Description) -> None:
        """Keep a compiled component, and delete those unused for longest if there are too many."""
        record = {**vars(description), "sha256": hashlib.sha256(payload).hexdigest()}
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
            self.add_warning(self._unwritable(error))

    def _unwritable(self, error: OSError) -> str:
        return (
            f"the cache in {self.folder} can't be written ({error.strerror}), so that models are compiled anew in "
            "each process; VINOGRAPH_CACHE names another folder, VINOGRAPH_CACHE_LIMIT=0 does without"
        )

    def map_with_weights(self, key: str) -> NDArray[np.uint8] | None:
        """The compiled component kept with its weights under ``key``, mapped from its file.

        None where there is none or it is damaged.
        """
        file = self.file_with_weights(key)
        try:
            content = mapped_blob.read(file)
        except _ABSENT:
            return None
        except OSError as error:
            self.add_warning(f"{file} in the cache can't be read ({error.strerror}); compiled anew")
            return None
        except mapped_blob.DamagedError:
            self.discard(file.stem, "it was damaged")
            return None
        with contextlib.suppress(OSError):  # the folder can only be read
            os.utime(file)
        return content

    def file_with_weights(self, key: str) -> Path:
        """The file of a compiled component that is kept with its weights."""
        return self._compiled / f"{key}{WITH_WEIGHTS}.blob"

    def has_room_with_weights(self, size: int) -> bool:
        """Whether an export of ``size`` bytes with weights would be kept."""
        return not self._disabled and size <= self._room_with_weights()

    def put_with_weights(self, key: str, export: Export, description: Description) -> None:
        """Keep a compiled component with its weights, which ``export`` writes to a stream.

        One process writes at a time, and others don't wait for it: a later process will keep what
        they leave out. Errors are logged, because the result of the drawing, which could hold a
        warning, is out by then.
        """
        file, most = self.file_with_weights(key), self._room_with_weights()
        try:
            self._compiled.mkdir(parents=True, exist_ok=True)
            with FileLock(self._compiled / "writing.lock", timeout=0):
                for orphan in self._compiled.glob(f".*{WITH_WEIGHTS}.blob.*.tmp"):  # of killed processes
                    orphan.unlink(missing_ok=True)
                if file.exists():
                    return
                with temporary_sibling(file) as temporary:
                    mapped_blob.write(temporary, vars(description), export, most)
                    self._make_room(temporary.stat().st_size)
                    temporary.replace(file)
        except (Timeout, mapped_blob.TooLargeError, FileNotFoundError):  # the last if the cache is cleared meanwhile
            return
        except OSError as error:
            self._disabled = True
            _log.warning(self._unwritable(error))

    def entries(self) -> list[Entry]:
        """The compiled components, the last used first."""
        found = []
        for each in self._files():
            with contextlib.suppress(OSError), each.file.open("rb") as stream:
                description = Description.read(_head(stream.readline(LONGEST_HEAD)))
                found.append(Entry(each.path, each.size, each.used, description))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def size(self) -> int:
        """Bytes that all compiled components take."""
        return sum(each.size for each in self._files())

    def clear(self) -> None:
        """Delete compiled components and measured settings; the limit stays.

        Raises:
            OSError: the folder can't be written.
        """
        if self._compiled.is_dir():
            for file in self._compiled.iterdir():
                file.unlink(missing_ok=True)
        with contextlib.suppress(*_ABSENT):
            self._settings.unlink()

    def settings(self) -> dict[str, dict[str, Any]]:
        """The records of measured settings by key."""
        return self.records(SETTINGS)

    def records(self, section: str) -> dict[str, dict[str, Any]]:
        """The records of a section of what was measured, by key."""
        return self._measured().get(section, {})

    def _measured(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The sections of what was measured, with what couldn't be written."""
        read = self._read_settings()
        return {name: {**read.get(name, {}), **self._unwritten.get(name, {})} for name in (read | self._unwritten)}

    def _read_settings(self) -> dict[str, dict[str, dict[str, Any]]]:
        try:
            content = strict_json.read_object(self._settings)
        except _ABSENT:
            return {}
        except (OSError, strict_json.JsonError) as error:
            self.add_warning(f"{self._settings} can't be read ({error}); {_MEASURE_AGAIN}")
            return {}
        if content.pop("format", None) != _FORMAT or not isinstance(content.get(SETTINGS, {}), dict):
            self.add_warning(f"{self._settings} is not a file of settings that this version reads; {_MEASURE_AGAIN}")
            return {}
        return {
            section: {key: record for key, record in known.items() if isinstance(record, dict)}
            for section, known in content.items()
            if isinstance(known, dict)
        }

    def remember(
        self, key: str, change: Callable[[dict[str, Any]], dict[str, Any]], section: str = SETTINGS
    ) -> dict[str, Any]:
        """Replace a record by what ``change`` makes of it, and return that; one process at a time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "settings.lock", timeout=_PATIENCE):
                measured = self._measured()
                known = measured.setdefault(section, {})
                record = known[key] = change(known.get(key, {}))
                write_atomically(self._settings, json.dumps({"format": _FORMAT, **measured}, indent=1).encode())
                return record
        except (OSError, Timeout) as error:
            self.add_warning(f"the fastest settings can't be remembered in {self.folder} ({error})")
            unwritten = self._unwritten.setdefault(section, {})
            unwritten[key] = change(unwritten.get(key, {}))
            return unwritten[key]

    def check_settings(self) -> None:
        """Check that settings can be kept, before any is measured.

        Raises:
            RequestError: the folder can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_writable(self._settings)
        except OSError as error:
            raise RequestError(
                f"measured settings can't be kept in {self.folder} ({error.strerror}); VINOGRAPH_CACHE names another "
                "folder"
            ) from error

    def _files(self) -> list[CompiledFile]:
        return compiled_files(self._compiled)

    def _room_with_weights(self) -> int:
        """Bytes that an export with weights may have without evicting one that is in use."""
        newest = time.time() - _IN_USE
        in_use = sum(each.size for each in self._files() if each.with_weights and each.used > newest)
        return self.limit_with_weights - in_use

    def _make_room(self, size: int) -> None:
        """Delete exports with weights, the longest unused first, until ``size`` more bytes fit."""
        delete_oldest([each for each in self._files() if each.with_weights], self.limit_with_weights - size)

    def _evict(self) -> None:
        """Delete what exceeds the limits: first exports with weights, worth less for their size."""
        for orphan in self._compiled.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if orphan.stat().st_mtime < time.time() - _ABANDONED:
                    orphan.unlink()
        self._make_room(0)
        delete_oldest([each for each in self._files() if not each.with_weights], self.limit)


def _head(line: bytes) -> dict[str, Any]:
    """The record in the first line of a file; empty where it is damaged."""
    try:
        return strict_json.parse_object(line, largest=LONGEST_HEAD)
    except strict_json.JsonError:
        return {}


def _line(value: Any) -> str:
    """A text of a record; empty where it is no text, or none that fits a line of a terminal."""
    return value if isinstance(value, str) and len(value) <= _LONGEST_NAME and value.isprintable() else ""
