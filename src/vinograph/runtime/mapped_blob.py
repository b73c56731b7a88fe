"""A file with a compiled component and its weights, which has gigabytes and is mapped instead of read.

It begins with a line of JSON, padded to whole pages; what OpenVINO exported follows. A checksum of all of it would take
as long as reading it saves, so one is taken of samples: the beginning and the end, where OpenVINO has its own header
and the graph, and of the weights between them a page here and there. That finds a file that was cut off, another file
under this name, and damage to what is parsed. Single bits that turn among the weights are left to the file system, as
they are in a bundle's own files.
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
"""Bytes of the first line at most."""

_PAGE = 4096
_FIRST = 1 << 20  # bytes at the beginning that count for the checksum
_LAST = 64 << 20  # at the end: the graph of a UNet of 13,000 nodes has some 20 MB
_STRIDE = 4 << 20  # bytes from one page between them to the next
_DIGEST = 64  # characters of a SHA-256
_DIGITS = 20  # more than a file's size has

Export = Callable[[io.BytesIO], object]
"""Writes a compiled component to what it is given, in pieces."""


class TooLargeError(Exception):
    """There was more to write than there is room for."""


class DamagedError(Exception):
    """A file is not what was written."""


class _Stream(io.BytesIO):
    """Passes on to a file what OpenVINO exports. OpenVINO takes nothing but a BytesIO, which would hold all of it.

    What fails here is raised by :meth:`check`, since OpenVINO drops it.
    """

    def __init__(self, file: BinaryIO, begin: int, most: int) -> None:
        super().__init__()
        self._file = file
        self._begin = begin
        self._most = most
        self._error: Exception | None = None

    def write(self, content: Any) -> int:
        """Write a piece, unless one before it failed."""
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
        """Go to a place of what is exported."""
        return self._file.seek(offset + self._begin if whence == io.SEEK_SET else offset, whence) - self._begin

    def tell(self) -> int:
        """The place in what is exported."""
        return self._file.tell() - self._begin

    def flush(self) -> None:
        """Nothing is held back that :func:`write` doesn't flush."""

    def check(self) -> None:
        """Raise what failed."""
        if self._error is not None:
            raise self._error


def write(file: Path, description: Mapping[str, Any], export: Export, most: int) -> None:
    """Write what ``export`` exports, of at most ``most`` bytes, to ``file``, and have it on the disk.

    Raises:
        TooLargeError: it has more.
        OSError: it can't be written.
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
    """What was exported, mapped copy-on-write: whoever keeps what is compiled of it keeps the array, too.

    Raises:
        DamagedError: the file is not what was written.
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
    """The first line. It is as long whatever the size and the checksum are."""
    text = json.dumps({**description, "size": size, "sampled": checksum})
    room = len(text) + _DIGITS - len(str(size)) + 1
    return text.encode().ljust(-(-room // _PAGE) * _PAGE - 1) + b"\n"


def _checksum(file: BinaryIO, begin: int, size: int) -> str:
    """A SHA-256 of the samples."""
    digest = hashlib.sha256()
    for place, length in _samples(size):
        file.seek(begin + place)
        digest.update(file.read(length))
    return digest.hexdigest()


def _samples(size: int) -> Iterator[tuple[int, int]]:
    """The beginnings and lengths of what counts for the checksum; all of it where that is little."""
    between = size - _FIRST - _LAST
    if between <= 0:
        yield 0, size
        return
    yield 0, _FIRST
    yield from ((place, _PAGE) for place in range(_FIRST, _FIRST + between, _STRIDE))
    yield size - _LAST, _LAST
