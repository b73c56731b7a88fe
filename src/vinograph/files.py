"""Files that appear whole or not at all, and what a failed write means."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vinograph.errors import RequestError, ResourceError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG)


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room: on the disk, of a quota, or of what a file may hold."""
    return error.errno in _FULL


@contextmanager
def beside(file: Path) -> Iterator[Path]:
    """A hidden temporary name in the folder of ``file``; what has it when the block ends is deleted."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A hidden temporary name in the folder of ``file``; what has it takes that one's place when the block succeeds."""
    with beside(file) as temporary:
        yield temporary
        temporary.replace(file)


def write_atomically(file: Path, content: bytes, *, flush: bool = False) -> None:
    """Write a whole file at once; with ``flush`` its contents are on the disk before its name is.

    Raises:
        OSError: it can't be written; what had the name before is untouched.
    """
    with replaced(file) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        if flush:
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Say of what fails in the block what a full disk or a read-only place means, and what OpenVINO lacks memory for.

    Raises:
        ResourceError: the disk is full.
        RequestError: ``target`` can't be written.
        MemoryError: OpenVINO says that memory is short.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            free = shutil.disk_usage(target.absolute().parent).free
            raise ResourceError(
                f"{target} doesn't fit: {error.strerror}; {target.absolute().parent} has {free / 1e9:.3f} GB free"
            ) from error
        if error.errno in _UNWRITABLE:
            raise RequestError(f"{target} can't be written: {error.strerror}") from error
        raise
    except RuntimeError as error:
        if any(each in str(error) for each in ("allocate memory", "bad_alloc", "bad allocation")):
            raise MemoryError from error
        raise
