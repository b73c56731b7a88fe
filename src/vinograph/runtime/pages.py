"""The memory of mapped files."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_MADV_DONTNEED = 4
_MAPS = Path("/proc/self/maps")
_WORTHWHILE = 1 << 20  # bytes


def release_pages(*files: Path) -> None:
    """Give the memory of what this process maps from ``files`` back to the system.

    Pages that are read again come back. A compiled model keeps the mapping of its weights, of most
    of which it has copies. Weights of checkpoints are mapped copy-on-write and never written, so
    nothing is lost. Files of less than a megabyte in all are left alone: a process has thousands of
    mappings, and to look through them takes longer. Does nothing on other systems than Linux.
    """
    if sys.platform != "linux" or sum(file.stat().st_size for file in files if file.exists()) < _WORTHWHILE:
        return
    names, libc = [os.fsencode(file.resolve()) for file in files], ctypes.CDLL(None, use_errno=True)
    for line in _MAPS.read_bytes().splitlines():
        if not line.endswith(tuple(names)):
            continue
        place, access, *rest = line.split(maxsplit=5)
        shared_with_others = b"w" in access and b"s" in access
        if rest[-1] in names and not shared_with_others:
            begin, end = (int(address, 16) for address in place.split(b"-"))
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
