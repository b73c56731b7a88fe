"""Arrays in a temporary file, so that gigabytes of converted weights take no memory."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import ResourceError

_ALIGNED = 64
_SMALL = 1 << 16  # bytes; smaller arrays aren't worth a mapping


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


class LastingScratch:
    """A file without a name that holds arrays for as long as they are in use.

    It is made when it is first needed, in the first of ``places`` that can be written. Small arrays
    stay in memory. ``purpose`` says in errors what the arrays are for.
    """

    def __init__(self, places: Sequence[Path], purpose: str) -> None:
        self._places = places
        self._purpose = purpose
        self._file: IO[bytes] | None = None
        self._place = Path()
        self._end = 0

    def keep(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, or an equal one that is mapped from the file.

        It is written at once: page by page through a mapping, that takes three times as long.

        Raises:
            ResourceError: no place can be written, or the disk is full.
        """
        if array.nbytes < _SMALL:
            return array
        file, begin = self._file or self._opened(), self._end
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        try:
            while data:
                data = data[os.pwrite(file.fileno(), data, begin + array.nbytes - len(data)) :]
        except OSError as error:
            free = shutil.disk_usage(self._place).free
            raise ResourceError(
                f"there is not enough room for {self._purpose} on the disk of {self._place} "
                f"({error.strerror or error}): {array.nbytes / 1e6:.0f} MB more are needed, and {free / 1e6:.0f} MB "
                "are free. Set VINOGRAPH_CACHE to a folder on another disk"
            ) from error
        self._end = -(-(begin + array.nbytes) // _ALIGNED) * _ALIGNED
        mapped: NDArray[Any] = np.memmap(file, array.dtype, "c", begin, array.shape)
        return mapped

    def _opened(self) -> IO[bytes]:
        problem: OSError | None = None
        for place in self._places:
            try:
                place.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 - it is closed with this object
                weakref.finalize(self, self._file.close)  # arrays that are still in use stay mapped
                self._place = place
                return self._file
            except OSError as error:
                problem = error
        raise ResourceError(
            f"there is no folder for {self._purpose} that can be written ({problem}): set VINOGRAPH_CACHE to one"
        )
