"""Arrays in a temporary file, so that gigabytes of converted weights take no memory."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNED = 64


class Scratch:
    """A context in which arrays are mapped from a file without a name.

    The system can take their memory back at any time. The file is gone when the block has ended and
    no array is in use any more, or when the process is killed.
    """

    def __init__(self, directory: Path) -> None:
        """The file will be made in ``directory`` when the block begins."""
        self._directory = directory
        self._arrays: list[NDArray[Any]] = []

    def __enter__(self) -> Scratch:
        """Make the file."""
        self._file = tempfile.TemporaryFile(dir=self._directory)
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
