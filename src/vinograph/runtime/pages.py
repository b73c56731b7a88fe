"""The memory of mapped files.

A component's weights are mapped from a file, and the device makes copies of most of them. A page
that was read counts as the process's memory until it is released. The system keeps it in its own
memory of files, so that reading it again costs little.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vinograph.resources import memory_shared

Range = tuple[int, int]
"""The first address of a range, and the one after its last."""

MOST_HELD = 64 << 20
"""Bytes of mapped pages that gather within :func:`releasing` before they are released."""

_MADV_DONTNEED = 4
_MAPS = Path("/proc/self/maps")
_WORTHWHILE = 1 << 20  # bytes
_SECONDS = 0.005  # between two looks at how many pages there are


def release_pages(*files: Path) -> None:
    """Give the memory of what this process maps from ``files`` back to the system.

    Pages that are read again come back. A compiled model keeps the mapping of its weights, of most
    of which it has copies. Weights of checkpoints are mapped copy-on-write and never written, so
    nothing is lost. Files of less than a megabyte in all are left alone: a process has thousands of
    mappings, and to look through them takes longer. Does nothing on other systems than Linux.
    """
    _release(mapped_ranges(*files))


@contextmanager
def releasing(ranges: Collection[Range] | Callable[[], Collection[Range]]) -> Iterator[None]:
    """Release ``ranges`` whenever many pages have gathered in the block.

    A block that reads gigabytes of mapped files, most pages once, so has few of them in memory. The
    ranges have to be backed by files and stay mapped: other memory would be emptied. A function is
    called each time for the ranges that there are by then. Does nothing on other systems than Linux.
    """
    ended, at_first = threading.Event(), memory_shared()

    def work() -> None:
        lowest = at_first
        while not ended.wait(_SECONDS):
            lowest = min(lowest, held := memory_shared())
            if held - lowest > MOST_HELD:
                _release(ranges() if callable(ranges) else ranges)
                lowest = memory_shared()

    thread = threading.Thread(target=work, name="release pages")
    if ranges and sys.platform == "linux":
        with contextlib.suppress(RuntimeError):  # no more threads: then the block holds its pages
            thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()


def mapped_ranges(*files: Path) -> set[Range]:
    """Where this process maps ``files``, without what it shares with others and may write.

    There are none for files of less than a megabyte in all, and on other systems than Linux.
    """
    if sys.platform != "linux" or sum(file.stat().st_size for file in files if file.exists()) < _WORTHWHILE:
        return set()
    names, found = [os.fsencode(file.resolve()) for file in files], set()
    for line in _MAPS.read_bytes().splitlines():
        if not line.endswith(tuple(names)):
            continue
        place, access, *rest = line.split(maxsplit=5)
        shared_with_others = b"w" in access and b"s" in access
        if rest[-1] in names and not shared_with_others:
            begin, end = (int(address, 16) for address in place.split(b"-"))
            found.add((begin, end))
    return found


def _release(ranges: Iterable[Range]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for begin, end in ranges:
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
