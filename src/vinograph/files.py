"""Writes files atomically, and explains failed writes."""

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
    """Whether a write failed because the disk, a quota or a file's size limit was exhausted.

    The exceptions that caused ``error`` count, too.
    """
    return shortage(error) is Shortage.DISK


def is_unwritable(error: BaseException) -> bool:
    """Whether a write failed because of the path: its permissions, its name or its type."""
    return isinstance(error, OSError) and error.errno in _UNWRITABLE


def hidden_sibling(file: Path, ending: str) -> Path:
    """The hidden path ``.NAME`` plus ``ending``, in the folder of ``file``.

    A name that would be too long for file systems is cut, and gets a digest of the whole name.
    """
    name = f".{file.name}{ending}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        encoded = os.fsencode(file.name)
        begin = encoded[:_PREFIX_OF_LONG_NAMES].decode("utf-8", "ignore")
        name = f".{begin}-{hashlib.sha256(encoded).hexdigest()[:16]}{ending}"
    return file.with_name(name)


def check_replaceable(file: Path) -> None:
    """Refuse a path that exists and is not a regular file, such as a directory or a device.

    Raises:
        RequestError: ``file`` is such a path; the message says what it is.
    """
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # it doesn't exist, or the write will report why it can't be reached
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise RequestError(f"{file} is {kind}, which a file can't take the place of; name a file")


def check_writable(file: Path) -> None:
    """Check that :func:`replaced` can write ``file``, by creating its temporary file.

    Raises:
        OSError: the file can't be written.
        RequestError: ``file`` exists and is not a regular file.
    """
    check_replaceable(file)
    with temporary_sibling(_real(file)) as temporary:
        temporary.touch()


@contextmanager
def temporary_sibling(file: Path) -> Iterator[Path]:
    """Yield a hidden temporary path next to ``file``, and delete its file when the block ends."""
    temporary = hidden_sibling(file, f".{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def created(file: Path) -> Iterator[Path]:
    """Yield a hidden temporary path, whose file becomes ``file`` when the block succeeds.

    Raises:
        FileExistsError: there is a file of that name, or it appeared during the block. It stays.
    """
    with temporary_sibling(file) as temporary:
        yield temporary
        try:
            os.link(temporary, file)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: the name is taken first, then replaced
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            temporary.replace(file)


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """Yield a hidden temporary path, whose file replaces ``file`` when the block succeeds.

    The new file gets the permissions of the old one, and its owner if this user may change owners.
    If ``file`` is a symbolic link, the file that it points to is replaced.

    Raises:
        RequestError: ``file`` exists and is not a regular file.
    """
    check_replaceable(file)
    target = _real(file)
    with temporary_sibling(target) as temporary:
        old = _stat(target)
        if old is not None:  # only the owner may read it while it is written
            temporary.unlink(missing_ok=True)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield temporary
        if old is not None:
            _copy_owner_and_mode(old, temporary)
        temporary.replace(target)


def _real(file: Path) -> Path:
    """Target of a symbolic link; any other path unchanged."""
    return Path(os.path.realpath(file)) if file.is_symlink() else file


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def _copy_owner_and_mode(old: os.stat_result, file: Path) -> None:
    if hasattr(os, "chown"):
        now = file.stat()
        if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
            with suppress(OSError):  # changing the owner takes privileges
                os.chown(file, old.st_uid, old.st_gid)
    file.chmod(stat.S_IMODE(old.st_mode) & 0o777)


def write_atomically(file: Path, content: bytes, *, flush: bool = False) -> None:
    """Write a file atomically; ``flush`` forces its contents to the disk before the rename.

    Raises:
        OSError: the file can't be written; an existing one is unchanged.
        RequestError: ``file`` exists and is not a regular file.
    """
    with replaced(file) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        if flush:
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn failures to write ``target`` in the block into errors that explain them.

    Raises:
        ResourceError: the disk is full.
        RequestError: ``target`` can't be written.
        MemoryError: memory is short, whichever exception reported it.
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
    """The folder itself, or its nearest parent that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def digest_of(file: Path, digest: hashlib._Hash, stopped: threading.Event | None = None) -> str:
    """Hexadecimal ``digest`` of a file's bytes, or of some of them if ``stopped`` is set."""
    with file.open("rb", buffering=0) as stream:
        while (part := stream.read(_READ_AT_ONCE)) and not (stopped and stopped.is_set()):
            digest.update(part)
    return digest.hexdigest()
