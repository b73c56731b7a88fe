"""Writing a large file, which is hashed and flushed to the disk while it is written.

A block is read, written and hashed while it is in the processor's cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from vinograph.runtime.writing import reserve, write_at

Bytes = NDArray[np.uint8]

_BLOCK = 1 << 20  # bytes
_BLOCKS = 4  # that may wait to be hashed
_FLUSHED = 1 << 28  # bytes written between two flushes


class _Hashing:
    """Hashes blocks in a thread of its own, which gives them back to be filled again."""

    def __init__(self) -> None:
        self.free: SimpleQueue[Bytes] = SimpleQueue()
        self._filled: SimpleQueue[Bytes | None] = SimpleQueue()
        for _ in range(_BLOCKS):
            self.free.put(np.empty(_BLOCK, np.uint8))

    def add(self, block: Bytes) -> None:
        """Hash a block, or the beginning of one."""
        self._filled.put(block)

    def end(self) -> None:
        """End :meth:`run`."""
        self._filled.put(None)

    def run(self) -> str:
        """The SHA-256 of all blocks, in hexadecimal, when the end has come."""
        digest = hashlib.sha256()
        while (block := self._filled.get()) is not None:
            digest.update(block.data)
            self.free.put(block if block.base is None else block.base)
        return digest.hexdigest()


def write_hashed(file: Path, size: int, fill: Callable[[Bytes], int]) -> str:
    """Write a file, and return its SHA-256.

    Args:
        file: the file.
        size: its bytes, for which the disk's room is reserved.
        fill: fills the beginning of an array with what comes next, and returns how many bytes those
            are; 0 at the end.

    Raises:
        OSError: the disk is full.
    """
    hashing = _Hashing()
    with file.open("wb", buffering=0) as stream, ThreadPoolExecutor(2, "hash and flush") as threads:
        reserve(stream.fileno(), 0, size)
        hashed, flushed = threads.submit(hashing.run), _Flushes(threads, stream.fileno())
        written = 0
        try:
            while count := fill(block := hashing.free.get()):
                write_at(stream.fileno(), block[:count].data, written)
                hashing.add(block[:count])
                flushed.count(count)
                written += count
        finally:
            hashing.end()
        flushed.check()
        return hashed.result()


class _Flushes:
    """Flushes a file from time to time, so that the disk works while the file is written."""

    def __init__(self, threads: ThreadPoolExecutor, descriptor: int) -> None:
        self._threads, self._descriptor = threads, descriptor
        self._waiting = 0
        self._started: list[Future[None]] = []

    def count(self, written: int) -> None:
        """Count bytes that were written, and start to flush them once there are many."""
        self._waiting += written
        if self._waiting >= _FLUSHED and all(each.done() for each in self._started):
            self._waiting = 0
            self._started.append(self._threads.submit(os.fsync, self._descriptor))

    def check(self) -> None:
        """Wait for flushes in progress. Raises the error of one that failed: no later one has it."""
        for each in self._started:
            each.result()
