"""Arrays that are made during conversion, in a file without a name, so that gigabytes of them take no memory."""

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
    """What is kept in the block is mapped from the file, and the system can take its memory back.

    The file is gone when the block has ended and nothing of it is in use any more, or the process is killed.
    """

    def __init__(self, directory: Path) -> None:
        """The file is made when the block begins."""
        self._directory = directory
        self._kept: list[NDArray[Any]] = []

    def __enter__(self) -> Scratch:
        """Make the file."""
        self._file = tempfile.TemporaryFile(dir=self._directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; who still uses what is mapped from it can go on."""
        self._file.close()
        self._kept.clear()

    def keep(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of an array of bytes, which stays until the block ends at least.

        Raises:
            OSError: the disk is full.
        """
        kept = self.allocate(array.shape, array.dtype)
        kept[...] = array
        return kept

    def allocate(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
        """An array of zeros, to be filled, which stays until the block ends at least.

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
        self._kept.append(mapped)
        return mapped
