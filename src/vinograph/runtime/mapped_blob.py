"""The file of a compiled component with its weights: gigabytes, which are mapped instead of read.

It begins with a line of JSON, padded to whole pages, and goes on with OpenVINO's export. A checksum
of all of it would cost the time that keeping it saves, so the checksum is one of samples. These are
the beginning and the end, where OpenVINO has its header and the graph, and pages at intervals
between them.

That finds a file that was cut off, another file under this name, and damage to what is parsed.
Single flipped bits among the weights are left to the file system, as they are in a bundle's own
files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vinograph import strict_json

LONGEST_HEAD = 100_000
"""The most bytes that the first line may have."""

_PAGE = 4096
_FIRST = 1 << 20  # bytes at the beginning that are in the checksum
_LAST = 64 << 20  # bytes at the end: the graph of a UNet of 13,000 nodes has about 20 MB
_STRIDE = 4 << 20  # bytes from one sampled page to the next
_DIGEST = 64  # characters of a SHA-256
_DIGITS = 20  # more than the size of any file has

Export = Callable[[io.BytesIO], object]
"""Writes a compiled component to the stream that it is given, in pieces."""


class TooLargeError(Exception):
    """An export is larger than the room for it."""


class DamagedError(Exception):
    """A file doesn't hold what was written."""


class _Stream(io.BytesIO):
    """A stream that passes OpenVINO's export on to a file.

    OpenVINO takes nothing but a BytesIO, which would hold all of the export in memory. It ignores
    errors of the stream, so :meth:`check` raises them afterwards.
    """

    def __init__(self, file: BinaryIO, begin: int, most: int) -> None:
        super().__init__()
        self._file = file
        self._begin = begin
        self._most = most
        self._error: Exception | None = None

    def write(self, content: Any) -> int:
        """Write a piece, unless an earlier one failed."""
        size = len(content)
        if self._error is None:
            try:
                if self.tell() + size > self._most:
                    raise TooLargeError
                self._file.write(content)
            except (OSError, TooLargeError) as error:
                self._error = error
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in the export."""
        return self._file.seek(offset + self._begin if whence == io.SEEK_SET else offset, whence) - self._begin

    def tell(self) -> int:
        """The position in the export."""
        return self._file.tell() - self._begin

    def flush(self) -> None:
        """Do nothing: :func:`write` flushes the file."""

    def check(self) -> None:
        """Raise the error of the first piece that failed."""
        if self._error is not None:
            raise self._error


def write(file: Path, description: Mapping[str, Any], export: Export, most: int) -> None:
    """Write ``export``, of at most ``most`` bytes, to ``file``, and flush it to the disk.

    Raises:
        TooLargeError: the export is larger.
        OSError: the file can't be written.
    """
    begin = len(_head(description, 0, "0" * _DIGEST))
    with file.open("w+b") as opened:
        opened.seek(begin)
        stream = _Stream(opened, begin, most - begin)
        export(stream)
        stream.check()
        size = opened.seek(0, os.SEEK_END) - begin
        head = _head(description, size, _checksum(opened, begin, size))
        opened.seek(0)
        opened.write(head)
        opened.flush()
        os.fsync(opened.fileno())


def read(file: Path) -> NDArray[np.uint8]:
    """The export in ``file`` as bytes, mapped copy-on-write.

    A model that is compiled from the array refers to it, so the array has to be kept as long as the
    model.

    Raises:
        DamagedError: the file doesn't hold what was written.
        OSError: it can't be read.
    """
    with file.open("rb") as opened:
        line = opened.readline(LONGEST_HEAD)
        try:
            head = strict_json.parse_object(line, largest=LONGEST_HEAD)
        except strict_json.JsonError as error:
            raise DamagedError from error
        size = os.fstat(opened.fileno()).st_size - len(line)
        if head.get("size") != size or size < 1 or head.get("sampled") != _checksum(opened, len(line), size):
            raise DamagedError
        return np.memmap(opened, np.uint8, mode="c", offset=len(line), shape=(size,))


def _head(description: Mapping[str, Any], size: int, checksum: str) -> bytes:
    """The first line, whose length doesn't depend on the size and the checksum."""
    text = json.dumps({**description, "size": size, "sampled": checksum})
    room = len(text) + _DIGITS - len(str(size)) + 1
    return text.encode().ljust(-(-room // _PAGE) * _PAGE - 1) + b"\n"


def _checksum(file: BinaryIO, begin: int, size: int) -> str:
    """The SHA-256 of the samples of ``size`` bytes from ``begin`` on."""
    digest = hashlib.sha256()
    for place, length in _samples(size):
        file.seek(begin + place)
        digest.update(file.read(length))
    return digest.hexdigest()


def _samples(size: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths of the samples; all of a small export is one."""
    between = size - _FIRST - _LAST
    if between <= 0:
        yield 0, size
        return
    yield 0, _FIRST
    yield from ((place, _PAGE) for place in range(_FIRST, _FIRST + between, _STRIDE))
    yield size - _LAST, _LAST
