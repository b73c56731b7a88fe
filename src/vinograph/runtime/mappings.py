"""Finds memory that is mapped from files, and copies it, inside the kernel if possible."""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from mmap import PAGESIZE
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

_MAPS = Path("/proc/self/smaps")
# Address range, permissions, offset, device, inode, path. Anonymous memory has no inode. Anonymous
# pages mean that a private mapping was changed, and so differs from the file.
_MAP = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) r\S+ ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) ([1-9]\d*) +(/.*)\n"
    r"(?:[A-Z].*\n)*?Anonymous: +0 kB\n",
    re.MULTILINE,
)
_SMALLEST = 1 << 16  # bytes; writing fewer is as quick as looking up their mapping

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, order=True)
class _Mapping:
    """A range of addresses, and the part of a file that is mapped there."""

    begin: int
    end: int
    offset: int
    device: tuple[int, int]
    inode: int
    path: str


class MappedFiles:
    """The files that are mapped into this process's memory when the block begins.

    A mapping counts only if the memory equals the file.
    """

    def __init__(self) -> None:
        self._mappings: Sequence[_Mapping] = ()
        self._open: dict[_Mapping, int | None] = {}

    def __enter__(self) -> MappedFiles:
        """List the mappings."""
        self._mappings = sorted(_read_mappings())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files that were copied from."""
        for descriptor in self._open.values():
            if descriptor is not None:
                os.close(descriptor)
        self._open.clear()

    def copy(self, data: Bytes, target: int) -> None:
        """Write ``data`` at the position of the file descriptor ``target``.

        Data is written from memory if it is not mapped from a file, or if the kernel can't copy
        between the two files.

        Raises:
            OSError: the disk is full.
        """
        copied = self._copy_in_kernel(data, target) if data.size >= _SMALLEST else 0
        _write(data[copied:], target)

    def _copy_in_kernel(self, data: Bytes, target: int) -> int:
        """Copy as many bytes as the kernel can, and return their number."""
        address = int(data.ctypes.data)
        mapping = self._mapping_at(address, data.size)
        source = None if mapping is None else self._descriptor(mapping)
        if mapping is None or source is None:
            return 0
        offset, copied = mapping.offset + address - mapping.begin, 0
        while copied < data.size:
            try:
                count = os.copy_file_range(source, target, data.size - copied, offset + copied)
            except OSError:  # unsupported between these file systems; a full disk fails again in writing
                break
            if count == 0:
                break
            copied += count
        return copied

    def _mapping_at(self, address: int, size: int) -> _Mapping | None:
        mapping = _holding(self._mappings, address)
        return mapping if mapping is not None and address + size <= mapping.end else None

    def _descriptor(self, mapping: _Mapping) -> int | None:
        """Descriptor of the mapping's file; None if its path now names another file."""
        if mapping not in self._open:
            self._open[mapping] = _opened(mapping)
        return self._open[mapping]


def file_ranges(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The whole pages of ``spans`` that are mapped from files.

    A span is an address and a number of bytes, a range the first address and the one after the
    last. Memory that no file backs, or that differs from its file, is in none.
    """
    mappings, found = sorted(_read_mappings()), []
    for address, size in spans:
        mapping = _holding(mappings, address)
        begin, end = -(-address // PAGESIZE) * PAGESIZE, (address + size) // PAGESIZE * PAGESIZE
        if mapping is not None and begin < end <= mapping.end:
            found.append((begin, end))
    return found


def _holding(mappings: Sequence[_Mapping], address: int) -> _Mapping | None:
    """The mapping, of sorted ones, that holds an address."""
    index = bisect.bisect_right(mappings, address, key=lambda mapping: mapping.begin) - 1
    return mappings[index] if index >= 0 and address < mappings[index].end else None


def _read_mappings() -> list[_Mapping]:
    """This process's mappings of files; none if the system doesn't list them."""
    try:
        text = _MAPS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    return [_mapping(match) for match in _MAP.finditer(text)]


def _mapping(match: re.Match[str]) -> _Mapping:
    begin, end, offset, major, minor = (int(match[group], 16) for group in range(1, 6))
    return _Mapping(begin, end, offset, (major, minor), int(match[6]), match[7])


def _opened(mapping: _Mapping) -> int | None:
    try:
        descriptor = os.open(mapping.path, os.O_RDONLY)
    except OSError:
        return None
    stat = os.fstat(descriptor)
    if (stat.st_ino, os.major(stat.st_dev), os.minor(stat.st_dev)) == (mapping.inode, *mapping.device):
        return descriptor
    os.close(descriptor)
    return None


def _write(data: Bytes, target: int) -> None:
    view = data.data
    while view:
        view = view[os.write(target, view) :]
