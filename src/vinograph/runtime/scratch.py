"""Arrays in a temporary file, so that gigabytes of converted weights take no memory."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import ResourceError
from vinograph.runtime.writing import reserve, write_at

_ALIGNED = 64
_SMALL = 1 << 16  # bytes; smaller arrays aren't worth a mapping
_PAGE = 4096  # bytes; a part of a page that is no longer in memory is read before it is written
_FILES = 4  # of one scratch: threads that write to the same file wait for each other


class Scratch:
    """A context in which arrays are mapped from a file without a name.

    The system can take their memory back at any time. The file is gone when the block has ended and
    no array is in use any more, or when the process is killed.
    """

    def __init__(self, directory: Path) -> None:
        """The file will be made in ``directory`` when the block begins."""
        self.directory = directory
        self._arrays: list[NDArray[Any]] = []

    def __enter__(self) -> Scratch:
        """Make the file."""
        self._file = tempfile.TemporaryFile(dir=self.directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; arrays that are still in use stay mapped."""
        self._file.close()
        self._arrays.clear()

    def keep(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of an array of bytes, which stays at least until the block ends.

        Raises:
            OSError: the disk is full.
        """
        copy = self.allocate(array.shape, array.dtype)
        copy[...] = array
        return copy

    def allocate(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
        """An array of zeros, which stays at least until the block ends.

        Raises:
            OSError: the disk is full.
        """
        size = math.prod(shape) * kind.itemsize
        offset = -(-self._file.tell() // _ALIGNED) * _ALIGNED
        if not size:
            return np.zeros(shape, kind)
        os.posix_fallocate(self._file.fileno(), offset, size)
        self._file.seek(offset + size)
        mapped: NDArray[Any] = np.memmap(self._file, kind, "r+", offset, shape)
        self._arrays.append(mapped)
        return mapped


@dataclass
class _File:
    """A file without a name in a folder, of which the first ``end`` bytes are taken.

    The first ``written`` bytes were taken before. It is closed when nothing refers to it; arrays
    that are still in use stay mapped.
    """

    folder: Path
    opened: IO[bytes]
    end: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        weakref.finalize(self, self.opened.close)


@dataclass(frozen=True)
class Place:
    """An array that is filled piece by piece, by any thread.

    Attributes:
        array: the array; what wasn't written yet is undefined.
        write: stores values in it, one after the other, from a flat index on.
    """

    array: NDArray[Any]
    write: Callable[[int, NDArray[Any]], None]


def in_memory(array: NDArray[Any]) -> Place:
    """A place that is an array, which is contiguous."""
    flat = array.reshape(-1)

    def write(begin: int, values: NDArray[Any]) -> None:
        flat[begin : begin + values.size] = values.reshape(-1)

    return Place(array, write)


class LastingScratch:
    """Files without a name that hold arrays for as long as they are in use.

    They are made when they are first needed, in the first of ``places`` that can be written. Small
    arrays stay in memory. ``purpose`` says in errors what the arrays are for.
    """

    def __init__(self, places: Sequence[Path], purpose: str) -> None:
        self._places = places
        self._purpose = purpose
        self._files: list[_File] = []
        self._in_use: weakref.WeakSet[Any] = weakref.WeakSet()

    def empty(self) -> None:
        """Forget all arrays, whose room the next ones take if none is in use any more.

        Memory that was written before is written again in half the time.
        """
        if self._in_use:
            self._files, self._in_use = [], weakref.WeakSet()
        for file in self._files:
            file.written, file.end = max(file.written, file.end), 0

    def room(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> Place:
        """Room for an array, which is mapped from a file.

        It is written by calls of the system: page by page through a mapping, that takes twice as
        long.

        Raises:
            ResourceError: no place can be written, or the disk is full. Writing raises it, too.
        """
        size = math.prod(shape) * kind.itemsize
        if size < _SMALL:
            return in_memory(np.empty(shape, kind))
        file = min(self._files or self._opened(), key=lambda each: each.end)
        begin, descriptor = file.end, file.opened.fileno()
        file.end = -(-(begin + size) // _PAGE) * _PAGE
        again = file.end <= file.written
        if not again:
            with self._disk_errors(file, size):
                reserve(descriptor, begin, size)

        def write(index: int, values: NDArray[Any]) -> None:
            data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
            with self._disk_errors(file, size):
                write_at(descriptor, data, begin + index * kind.itemsize, again=again)

        array: NDArray[Any] = np.memmap(file.opened, kind, "c", begin, shape)
        self._in_use.add(array.base)
        return Place(array, write)

    @contextmanager
    def _disk_errors(self, file: _File, size: int) -> Iterator[None]:
        """Raise errors of writing an array of ``size`` bytes as ResourceErrors."""
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(file.folder).free
            raise ResourceError(
                f"there is not enough room for {self._purpose} on the disk of {file.folder} "
                f"({error.strerror or error}): {size / 1e6:.0f} MB more are needed, and {free / 1e6:.0f} MB "
                "are free. Set VINOGRAPH_CACHE to a folder on another disk"
            ) from error

    def _opened(self) -> list[_File]:
        problem: OSError | None = None
        for place in self._places:
            try:
                place.mkdir(parents=True, exist_ok=True)
                self._files = [_File(place, tempfile.TemporaryFile(dir=place)) for _ in range(_FILES)]  # noqa: SIM115
                return self._files
            except OSError as error:
                problem = error
        raise ResourceError(
            f"there is no folder for {self._purpose} that can be written ({problem}): set VINOGRAPH_CACHE to one"
        )
