"""Files that appear whole or not at all, and what a failed write means."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vinograph.errors import RequestError, ResourceError
from vinograph.resources import Shortage, shortage

_UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.ELOOP, errno.ETXTBSY),
)
_LONGEST_NAME = 255  # bytes, of ext4, XFS, APFS and NTFS
_PREFIX_OF_LONG_NAMES = 100
_READ_AT_ONCE = 1 << 20


def is_full(error: BaseException) -> bool:
    """Whether a write failed for want of room: on the disk, of a quota, or of what a file may hold.

    The exceptions that it was raised from count, too.
    """
    return shortage(error) is Shortage.DISK


def is_unwritable(error: BaseException) -> bool:
    """Whether a write failed because this place takes no such file: its permissions, its name, or what it is."""
    return isinstance(error, OSError) and error.errno in _UNWRITABLE


def hidden_sibling(file: Path, ending: str) -> Path:
    """A hidden name in the folder of ``file`` with an ending of its own, no longer than file systems allow.

    It is ``.NAME`` and the ending, or of a long name the beginning and a digest of the whole.
    """
    name = f".{file.name}{ending}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        whole = os.fsencode(file.name)
        begin = whole[:_PREFIX_OF_LONG_NAMES].decode("utf-8", "ignore")
        name = f".{begin}-{hashlib.sha256(whole).hexdigest()[:16]}{ending}"
    return file.with_name(name)


def check_replaceable(file: Path) -> None:
    """Refuse a path that is there and is no regular file, such as a directory, a pipe or a device.

    Raises:
        RequestError: saying what it is.
    """
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # it isn't there, or writing says why it can't be reached
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise RequestError(f"{file} is {kind}, which a file can't take the place of; name a file")


def check_writable(file: Path) -> None:
    """Check, by making a temporary file where that would be, that :func:`replaced` can write ``file``.

    Raises:
        OSError: it can't.
        RequestError: ``file`` is there, but no regular file.
    """
    check_replaceable(file)
    with temporary_sibling(_real(file)) as temporary:
        temporary.touch()


@contextmanager
def temporary_sibling(file: Path) -> Iterator[Path]:
    """A hidden temporary name in the folder of ``file``; a file of that name is deleted when the block ends."""
    temporary = hidden_sibling(file, f".{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A hidden temporary name in the folder of ``file``, whose file replaces that one when the block succeeds.

    A file that is replaced passes its permissions on, and its owner where this user may give files
    away. Of a symbolic link, the file that it points to is replaced.

    Raises:
        RequestError: ``file`` is there, but no regular file.
    """
    check_replaceable(file)
    target = _real(file)
    with temporary_sibling(target) as temporary:
        before = _stat(target)
        if before is not None:  # meanwhile nobody may read what they couldn't read before
            temporary.unlink(missing_ok=True)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield temporary
        if before is not None:
            _pass_on(before, temporary)
        temporary.replace(target)


def _real(file: Path) -> Path:
    """The file that a symbolic link points to; any other path as it is."""
    return Path(os.path.realpath(file)) if file.is_symlink() else file


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def _pass_on(before: os.stat_result, file: Path) -> None:
    if hasattr(os, "chown"):
        now = file.stat()
        if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
            with suppress(OSError):  # giving files away takes privileges
                os.chown(file, before.st_uid, before.st_gid)
    file.chmod(stat.S_IMODE(before.st_mode) & 0o777)


def write_atomically(file: Path, content: bytes, *, flush: bool = False) -> None:
    """Write a file that is either whole or not there; ``flush`` puts its contents on the disk before its name.

    Raises:
        OSError: it can't be written; a file that had the name before is untouched.
        RequestError: ``file`` is there, but no regular file.
    """
    with replaced(file) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        if flush:
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Explain what fails in the block: a full disk, a place that takes no files, or memory that OpenVINO lacks.

    Raises:
        ResourceError: the disk is full.
        RequestError: ``target`` can't be written.
        MemoryError: memory is short, whoever says so.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            free = shutil.disk_usage(existing(target.absolute().parent)).free
            raise ResourceError(
                f"{target} doesn't fit: {error.strerror}; {target.absolute().parent} has {free / 1e9:.3f} GB free"
            ) from error
        if shortage(error) is Shortage.MEMORY:
            raise MemoryError(*error.args) from error
        if is_unwritable(error):
            raise RequestError(f"{target} can't be written: {error.strerror}") from error
        raise
    except RuntimeError as error:
        if shortage(error) is Shortage.MEMORY:
            raise MemoryError(str(error)) from error
        raise


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def digest_of(file: Path, digest: hashlib._Hash, stopped: threading.Event | None = None) -> str:
    """The hexadecimal ``digest`` of a file's bytes; of a part of them, if ``stopped`` is set meanwhile."""
    with file.open("rb", buffering=0) as stream:
        while (part := stream.read(_READ_AT_ONCE)) and not (stopped and stopped.is_set()):
            digest.update(part)
    return digest.hexdigest()
