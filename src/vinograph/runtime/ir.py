"""Writes OpenVINO IR: the graph with OpenVINO's writer, the weights with a faster one.

OpenVINO's own writer passes every weight through a C++ stream, which takes four times as long as
copying the file. Here the kernel copies weights that are mapped from a file. A file that can't be
written completely is an error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from vinograph.files import digest_of
from vinograph.runtime.mappings import MappedFiles

_CONSTANT = re.compile(r'type="Const" version="opset1">\s*<data [^>]*?offset="(\d+)" size="(\d+)"')
_NESTING = ("If", "Loop", "TensorIterator")  # their bodies have constants of their own
_SAMPLE = 4096  # bytes at the start, middle and end, enough to distinguish most arrays
_BLOCK = 1 << 24  # bytes hashed between two checks of ``stopped``

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class _Piece:
    """Bytes of one constant, and their offset in the .bin file."""

    data: Bytes
    offset: int


def save(model: ov.Model, file: Path, stopped: Event | None = None) -> str:
    """Write ``model`` to ``file`` (.xml) and its .bin, with unchanged weights.

    Setting ``stopped`` ends the writing early.

    Returns:
        The SHA-256 of the .bin file, in hexadecimal.

    Raises:
        OSError: the disk is full.
        InterruptedError: ``stopped`` was set.
    """
    stopped = stopped or Event()
    if any(node.get_type_name() in _NESTING for node in model.get_ops()):
        return _save_by_openvino(model, file)
    graph = _graph_text(model, file)
    arrays = [_bytes_of(node) for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    pieces, offsets = _layout(arrays)
    file.write_text(_with_offsets(graph, arrays, offsets), encoding="utf-8")
    with ThreadPoolExecutor(1, "sha256") as thread:
        hashed: Future[str] = thread.submit(_sha256, pieces, stopped)
        try:
            _write(pieces, file.with_suffix(".bin"), stopped)
        except BaseException:
            stopped.set()
            raise
        return hashed.result()


def _save_by_openvino(model: ov.Model, file: Path) -> str:
    """Write a graph whose operations contain graphs, and return the SHA-256 of its .bin file."""
    with _disk_errors(file):
        ov.save_model(model, file, compress_to_fp16=False)
    text, weights = _whole(file), file.with_suffix(".bin")
    ends = [int(offset) + int(size) for offset, size in _CONSTANT.findall(text)]
    if weights.stat().st_size < max(ends, default=0):
        raise _disk_full(weights)
    return digest_of(weights, hashlib.sha256())


def _graph_text(model: ov.Model, file: Path) -> str:
    """XML of the graph as OpenVINO writes it, with meaningless offsets: weights are discarded.

    Raises:
        OSError: the disk is full.
    """
    model.set_rt_info(ov.get_version(), "OpenVINO Runtime")
    with _disk_errors(file):
        ov.serialize(model, file, os.devnull)
    return _whole(file)


@contextmanager
def _disk_errors(file: Path) -> Iterator[None]:
    """Raise OSError where OpenVINO reports a full disk, by RuntimeError, as "iostream error"."""
    try:
        yield
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        raise _disk_full(file) from error


def _whole(file: Path) -> str:
    """Text of a graph that OpenVINO wrote. It doesn't report every full disk.

    Raises:
        OSError: the end is missing.
    """
    text = file.read_text(encoding="utf-8")
    if not text.rstrip().endswith("</net>"):
        raise _disk_full(file)
    return text


def _with_offsets(graph: str, arrays: list[Bytes], offsets: list[int]) -> str:
    """XML of the graph, with each constant's offset in the .bin file."""
    places = iter(zip(arrays, offsets, strict=True))

    def place(match: re.Match[str]) -> str:
        array, offset = next(places)
        if int(match[2]) != array.size:
            raise RuntimeError(f"OpenVINO wrote a constant of {match[2]} bytes, the model has one of {array.size}")
        begin = match.start(1) - match.start()
        return f'{match[0][:begin]}{offset}" size="{array.size}"'

    text = _CONSTANT.sub(place, graph)
    if (array := next(places, None)) is not None:
        raise RuntimeError(f"OpenVINO left out a constant of {array[0].size} bytes")
    return text


def _bytes_of(constant: Any) -> Bytes:
    """Bytes of a constant, without a copy. OpenVINO stores one byte for an empty constant."""
    flat: NDArray[Any] = constant.get_tensor_view().data.reshape(-1)
    return flat.view(np.uint8) if flat.size else np.zeros(1, np.uint8)


def _layout(arrays: list[Bytes]) -> tuple[list[_Piece], list[int]]:
    """Pieces of the .bin file, and the offset of each array in it; equal arrays share a piece."""
    pieces: list[_Piece] = []
    offsets: list[int] = []
    candidates: dict[tuple[int, bytes], list[_Piece]] = {}
    end = 0
    for array in arrays:
        alike = candidates.setdefault((array.size, _sample(array)), [])
        piece = next((each for each in alike if np.array_equal(each.data, array)), None)
        if piece is None:
            piece = _Piece(array, end)
            alike.append(piece)
            pieces.append(piece)
            end += array.size
        offsets.append(piece.offset)
    return pieces, offsets


def _sample(array: Bytes) -> bytes:
    middle = array.size // 2
    return b"".join(part.tobytes() for part in (array[:_SAMPLE], array[middle : middle + _SAMPLE], array[-_SAMPLE:]))


def _write(pieces: list[_Piece], file: Path, stopped: Event) -> None:
    """Write the pieces one after another."""
    with file.open("wb", buffering=0) as stream, MappedFiles() as mapped:
        for piece in pieces:
            if stopped.is_set():
                raise InterruptedError(f"writing {file} was stopped")
            mapped.copy(piece.data, stream.fileno())


def _sha256(pieces: list[_Piece], stopped: Event) -> str:
    """SHA-256 of the pieces in order; an empty text if ``stopped`` is set meanwhile."""
    digest = hashlib.sha256()
    for piece in pieces:
        for begin in range(0, piece.data.size, _BLOCK):
            if stopped.is_set():
                return ""
            digest.update(piece.data[begin : begin + _BLOCK].data)
    return digest.hexdigest()


def _disk_full(file: Path) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
