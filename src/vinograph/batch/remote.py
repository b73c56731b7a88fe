"""Pictures in a bucket, or wherever else fsspec writes to."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vinograph.batch.store import PRIVATE
from vinograph.errors import RequestError
from vinograph.values import clipped

# An object is there once all of it was sent. Elsewhere a file is renamed once it is whole.
_WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "memory"}


class RemoteStore:
    """A folder of a file system that fsspec knows."""

    def __init__(self, url: str) -> None:
        """The URL names the folder, such as s3://bucket/folder.

        Raises:
            RequestError: fsspec lacks a package for it, or it can't be reached.
        """
        from fsspec.core import url_to_fs

        self._url = url.rstrip("/")
        self._system: Any
        try:
            self._system, self._root = url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise RequestError(f"{url} can't be used: {error}") from error
        protocol = self._system.protocol
        self._whole = not _WHOLE_AT_ONCE.isdisjoint({protocol} if isinstance(protocol, str) else protocol)
        self._there: set[bytes] | None = None

    def relative(self, key: str) -> str:
        """The path below the folder."""
        return f"{key[:2]}/{key}.png"

    def has(self, key: str) -> bool:
        """Whether the file was there when the first was asked for; then all are listed."""
        if self._there is None:
            with self._reaching():
                files = self._system.find(self._root) if self._system.exists(self._root) else []
                self._there = {stem for each in files for stem in _key_in(each)}
        return bytes.fromhex(key) in self._there

    def read(self, key: str) -> bytes | None:
        """The content of the file, if it is there."""
        return self._content(self.relative(key))

    def write(self, key: str, content: bytes) -> None:
        """Write the file whole."""
        self._put(self.relative(key), content)

    def clear_abandoned(self) -> None:
        """Nothing is left where objects are whole; elsewhere others may be writing."""

    def note(self, name: str) -> bytes | None:
        """What an earlier run left."""
        return self._content(f"{PRIVATE}/{name}")

    def leave_note(self, name: str, content: bytes) -> None:
        """Leave something for later runs."""
        self._put(f"{PRIVATE}/{name}", content)

    def publish(self, name: str, file: Path) -> None:
        """Copy the file into the folder."""
        with self._reaching():
            self._system.put_file(str(file), f"{self._root}/{name}")

    def _content(self, path: str) -> bytes | None:
        with self._reaching():
            try:
                return bytes(self._system.cat_file(f"{self._root}/{path}"))
            except FileNotFoundError:
                return None

    def _put(self, path: str, content: bytes) -> None:
        target = f"{self._root}/{path}"
        with self._reaching():
            if self._whole:
                self._system.pipe_file(target, content)
                return
            self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
            temporary = f"{self._root}/{PRIVATE}/writing.{socket.gethostname()}.{os.getpid()}"
            self._system.makedirs(temporary.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(temporary, content)
            self._system.mv(temporary, target)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RequestError(f"{self._url} can't be used: {clipped(str(error))}") from error


def _key_in(path: str) -> Iterator[bytes]:
    stem = path.rpartition("/")[2].removesuffix(".png")
    with contextlib.suppress(ValueError):
        yield bytes.fromhex(stem)
