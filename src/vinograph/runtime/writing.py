"""Writing gigabytes to new files."""

from __future__ import annotations

import os

_PIECE = 1 << 16
# Bytes of a call. For larger ones Linux takes larger pages, and those that are free may be gone: a
# virtual machine gives them back to its host, and finds them again at 1 GB/s. Small ones stay.


def write_at(descriptor: int, data: memoryview, begin: int) -> None:
    """Write bytes to a file from the offset ``begin`` on.

    Raises:
        OSError: the disk is full.
    """
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done : done + _PIECE], begin + done)
