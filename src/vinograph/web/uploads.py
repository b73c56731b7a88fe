"""The visitors' uploads: each visitor has a folder, with limits on what may lie in it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vinograph.errors import RequestError, ResourceError
from vinograph.images import READABLE, read_picture

MEGABYTE = 1_000_000
_UPLOADS = "uploads"
_LONGEST_NAME = 100  # bytes
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class UploadLimits:
    """Limits on uploads, in bytes but for ``files`` and ``seconds``.

    ``largest`` is of one file; ``files`` and ``total`` are of one visitor, ``total_of_all`` of all.
    At a limit the oldest files go. After so many ``seconds`` any file does.
    """

    largest: int = 64 * MEGABYTE
    files: int = 32
    total: int = 256 * MEGABYTE
    total_of_all: int = 2_000 * MEGABYTE
    seconds: float = 6 * 3600


@dataclass
class _Upload:
    visitor: str
    folder: Path
    size: int
    complete: bool = False
    since: float = field(default_factory=time.monotonic)


class Uploads:
    """The visitors' folders and the files in them."""

    def __init__(self, folder: Path, limits: UploadLimits | None = None) -> None:
        """Keep the visitors' folders in ``folder``, which the server deletes when it ends."""
        self.folder = folder.resolve()
        self.limits = limits or UploadLimits()
        self._uploads: list[_Upload] = []  # the oldest first
        self._pages = Counter[str]()
        self._lock = threading.Lock()
        self._decoding = threading.Lock()

    def folder_of(self, visitor: str) -> Path:
        """The visitor's folder, named by a hash: addresses show it, and the cookie is secret."""
        return self.folder / hashlib.sha256(visitor.encode()).hexdigest()[:32]

    def own_file(self, visitor: str, path: Any) -> Path:
        """The visitor's own file that a client's ``path`` names. All such paths are checked here.

        Raises:
            RequestError: the visitor has no such file. Nothing outside the visitor's folder is
                looked at.
        """
        return _within(self.folder_of(visitor), path)

    def any_file(self, path: Any) -> Path:
        """The file of any visitor that ``path`` names, to show it: nobody can guess another's path.

        Raises:
            RequestError: there is no such file.
        """
        return _within(self.folder, path)

    def read(self, visitor: str, path: Any) -> Image.Image:
        """The picture in one of the visitor's own files; one is decoded at a time, to save memory.

        Raises:
            RequestError: there is no such file, or it holds no picture. The message names no
                folder.
        """
        file = self.own_file(visitor, path)
        try:
            with self._decoding:
                return read_picture(file, "picture", READABLE)
        except RequestError as error:
            raise RequestError(str(error).replace(str(file), file.name)) from error

    @contextmanager
    def receive(self, visitor: str, size: int) -> Iterator[Path]:
        """Make room for an upload of at most ``size`` bytes, and yield an empty folder for it.

        Where the block fails, the folder is deleted again.

        Raises:
            RequestError: this visitor, or all of them, are uploading too much at once.
            ResourceError: the disk has no room for the upload.
        """
        upload = self._begin(visitor, size)
        try:
            upload.folder.mkdir(parents=True)
            yield upload.folder
            with self._lock:
                upload.size = sum(each.stat().st_size for each in upload.folder.iterdir())
                upload.complete = True
        except BaseException:
            with self._lock:
                self._remove(upload)
            raise

    def _begin(self, visitor: str, size: int) -> _Upload:
        upload = _Upload(visitor, self.folder_of(visitor) / _UPLOADS / uuid.uuid4().hex, size)
        limits = self.limits
        with self._lock:
            for each in [each for each in self._uploads if each.complete and _age(each) > limits.seconds]:
                self._remove(each)
            own = [each for each in self._uploads if each.visitor == visitor]
            self._make_room(own, size, limits.total, limits.files)
            self._make_room(self._uploads, size, limits.total_of_all)
            free = shutil.disk_usage(self.folder).free
            if free < size:
                raise ResourceError(f"the server's disk is full: {free:,} bytes are free")
            self._uploads.append(upload)
        return upload

    def _make_room(self, uploads: list[_Upload], size: int, total: int, count: int | None = None) -> None:
        """Remove the oldest complete ones of ``uploads``, until another fits."""
        incomplete = [each for each in uploads if not each.complete]
        removable = [each for each in uploads if each.complete]
        while sum(each.size for each in incomplete + removable) + size > total or (
            count is not None and len(incomplete + removable) >= count
        ):
            if not removable:
                raise RequestError("too much is being uploaded at once; try again later")
            self._remove(removable.pop(0))

    def _remove(self, upload: _Upload) -> None:
        if upload in self._uploads:
            self._uploads.remove(upload)
        shutil.rmtree(upload.folder, ignore_errors=True)  # a folder that was never made isn't there

    @contextmanager
    def open_page(self, visitor: str) -> Iterator[None]:
        """Count a page as open while the block runs; the visitor's uploads go with the last one."""
        with self._lock:
            self._pages[visitor] += 1
        try:
            yield
        finally:
            with self._lock:
                self._pages[visitor] -= 1
                if not self._pages[visitor]:
                    del self._pages[visitor]
                    for each in [each for each in self._uploads if each.visitor == visitor and each.complete]:
                        self._remove(each)


def _age(upload: _Upload) -> float:
    return time.monotonic() - upload.since


def _within(folder: Path, path: Any) -> Path:
    """The file that a client's path names, where it lies in ``folder``.

    The path is compared as text first, so that the disk is asked about nothing outside.
    """
    if isinstance(path, str) and len(path) <= _LONGEST_PATH and "\0" not in path:
        named = Path(os.path.normpath(path))
        if named.is_relative_to(folder):
            try:
                file = named.resolve(strict=True)
                if file.is_relative_to(folder) and file.is_file():
                    return file
            except (OSError, RuntimeError):  # it is gone, its name is too long, or links lead in a circle
                pass
    raise RequestError("no such file")


def safe_name(name: str) -> str:
    """A client's file name made safe: its last part, short, in characters that any disk takes."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, ending = re.sub(r"[^\w .()+-]", "_", last).strip(". ").rpartition(".")
    stem, ending = (stem, f"{dot}{ending}"[:10]) if stem else (ending, "")
    while len(f"{stem}{ending}".encode()) > _LONGEST_NAME:
        stem = stem[:-1]
    return f"{stem}{ending}" or "picture"
