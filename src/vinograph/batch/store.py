"""The pictures' files: OUT/aa/KEY.png, each of which is whole or isn't there."""

from __future__ import annotations

import importlib.util
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from vinograph.errors import RequestError
from vinograph.files import explained, write_atomically

PRIVATE = ".vinograph"
"""The folder in OUT of what isn't for the user: files that are being written, and the index."""


class Store(Protocol):
    """Where pictures are written to."""

    def relative(self, key: str) -> str:
        """The path of a picture's file, below OUT."""

    def has(self, key: str) -> bool:
        """Whether the file is there."""

    def read(self, key: str) -> bytes | None:
        """The content of a file that is there at this moment."""

    def write(self, key: str, content: bytes) -> None:
        """Write a file whole.

        Raises:
            RequestError: nothing can be written there.
            ResourceError: the disk is full.
        """

    def clear_abandoned(self) -> None:
        """Delete what processes of this machine left that don't run any more."""

    def note(self, name: str) -> bytes | None:
        """What an earlier run left under a name for all later ones."""

    def leave_note(self, name: str, content: bytes) -> None:
        """Leave something for later runs."""

    def publish(self, name: str, file: Path) -> None:
        """Move a file of this machine to OUT, whole."""


def open_store(out: str) -> Store:
    """The store of a directory, or of a URL such as s3://bucket/folder.

    Raises:
        RequestError: it takes a package that is not installed, or nothing can be written there.
    """
    if "://" in out:
        return _remote(out)
    return LocalStore(Path(out))


def there(out: str) -> bool:
    """Whether an earlier run may have left something."""
    return "://" in out or Path(out).is_dir()


class LocalStore:
    """A directory."""

    def __init__(self, root: Path) -> None:
        """The directory is made where it isn't there.

        Raises:
            RequestError: it can't be.
        """
        self.root = root
        with explained(root):
            (root / PRIVATE).mkdir(parents=True, exist_ok=True)

    def relative(self, key: str) -> str:
        """The path below the directory."""
        return f"{key[:2]}/{key}.png"

    def has(self, key: str) -> bool:
        """Whether the file is there."""
        return (self.root / self.relative(key)).is_file()

    def read(self, key: str) -> bytes | None:
        """The content of the file, if it is there."""
        return _content(self.root / self.relative(key))

    def write(self, key: str, content: bytes) -> None:
        """Write the file under a temporary name, force it to the disk and rename it."""
        target = self.root / self.relative(key)
        temporary = self.root / PRIVATE / f"{_temporary_of(os.getpid())}{key}"
        with explained(target):
            target.parent.mkdir(exist_ok=True)
            try:
                with temporary.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def clear_abandoned(self) -> None:
        """Delete what processes of this machine left that don't run any more."""
        for file in (self.root / PRIVATE).glob(f"{_PREFIX}{socket.gethostname()}.*"):
            pid = file.name.split(".")[-2]
            if pid.isdecimal() and not _runs(int(pid)):
                with suppress(OSError):
                    file.unlink()

    def note(self, name: str) -> bytes | None:
        """What an earlier run left."""
        return _content(self.root / PRIVATE / name)

    def leave_note(self, name: str, content: bytes) -> None:
        """Leave something for later runs."""
        with explained(self.root / PRIVATE / name):
            write_atomically(self.root / PRIVATE / name, content, flush=True)

    def publish(self, name: str, file: Path) -> None:
        """Move the file into the directory."""
        with explained(self.root / name):
            file.replace(self.root / name)


_PREFIX = "writing."


def _content(file: Path) -> bytes | None:
    with explained(file):
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None


def _temporary_of(pid: int) -> str:
    return f"{_PREFIX}{socket.gethostname()}.{pid}."


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remote(out: str) -> Store:
    if importlib.util.find_spec("fsspec") is None:
        raise RequestError(f'{out} is a URL, which needs fsspec: pip install "vinograph[batch]"')
    from vinograph.batch.remote import RemoteStore

    return RemoteStore(out)
