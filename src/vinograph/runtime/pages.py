"""The memory of mapped files."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_MADV_DONTNEED = 4


def release_pages(file: Path) -> None:
    """Give the memory of what this process maps from ``file`` back to the system.

    Pages that are read again come back. A compiled model keeps the mapping of its weights, of most
    of which it has copies. Weights of checkpoints are mapped copy-on-write and never written, so
    nothing is lost. Does nothing on other systems than Linux.
    """
    if sys.platform != "linux":
        return
    name, libc = str(file.resolve()), ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        place, access, *rest = line.split(maxsplit=5)
        shared_with_others = "w" in access and "s" in access
        if rest[-1] == name and not shared_with_others:
            begin, end = (int(address, 16) for address in place.split("-"))
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
