"""Writing gigabytes to new files."""

from __future__ import annotations

import errno
import os

_PIECE = 1 << 16
# Bytes of a call that writes new pages. For larger ones Linux takes larger pages, and those that are
# free may be gone: a virtual machine gives them back to its host, and finds them again at 1 GB/s.
# Small ones stay.
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP)


def reserve(descriptor: int, begin: int, size: int) -> None:
    """Make a file long enough for ``size`` bytes from ``begin`` on, and reserve the disk's room.

    Writing them then takes half the time, where the file system can reserve room.

    Raises:
        OSError: the disk is full.
    """
    end = begin + size
    try:
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, begin, size)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    if os.fstat(descriptor).st_size < end:
        os.ftruncate(descriptor, end)


def write_at(descriptor: int, data: memoryview, begin: int, *, again: bool = False) -> None:
    """Write bytes to a file from the offset ``begin`` on.

    Args:
        descriptor: the open file.
        data: the bytes.
        begin: where they begin in the file.
        again: whether there were bytes before; then few large calls write them.

    Raises:
        OSError: the disk is full.
    """
    done, piece = 0, len(data) if again else _PIECE
    while done < len(data):
        done += os.pwrite(descriptor, data[done : done + piece], begin + done)
