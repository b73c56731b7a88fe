"""The files of the page's visitors: each has a folder of its own, with limits on what may lie in it."""

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
from vinograph.images import read_picture

MEGABYTE = 1_000_000
_UPLOADS = "uploads"
_LONGEST_NAME = 100  # bytes
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class UploadLimits:
    """How much may be uploaded. Where a limit is reached, the oldest files go; a single file has to fit."""

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
    """The visitors' folders, below one that goes when the server ends."""

    def __init__(self, folder: Path, limits: UploadLimits | None = None) -> None:
        """Keep everything in ``folder``."""
        self.folder = folder.resolve()
        self.limits = limits or UploadLimits()
        self._uploads: list[_Upload] = []  # the oldest first
        self._pages = Counter[str]()
        self._lock = threading.Lock()
        self._decoding = threading.Lock()

    def folder_of(self, visitor: str) -> Path:
        """The visitor's own folder. Its name says nothing about the secret by which the visitor is known."""
        return self.folder / hashlib.sha256(visitor.encode()).hexdigest()[:32]

    def own(self, visitor: str, path: Any) -> Path:
        """The file of the visitor's own that a client's ``path`` names. All paths from clients go through here.

        Raises:
            RequestError: it is no such file. Nothing outside the visitor's folder is looked at.
        """
        return _within(self.folder_of(visitor), path)

    def anyones(self, path: Any) -> Path:
        """A visitor's file, whoever's it is, to be shown to someone who knows its name, which can't be guessed.

        Raises:
            RequestError: it is no such file.
        """
        return _within(self.folder, path)

    def read(self, visitor: str, path: Any) -> Image.Image:
        """The picture in a file of the visitor's own. One is decoded at a time, for the sake of memory.

        Raises:
            RequestError: it is no such file, or no picture. No path is named.
        """
        file = self.own(visitor, path)
        try:
            with self._decoding:
                return read_picture(file, "picture")
        except RequestError as error:
            raise RequestError(str(error).replace(str(file), file.name)) from error

    @contextmanager
    def receive(self, visitor: str, size: int) -> Iterator[Path]:
        """Make room for an upload of ``size`` bytes at most, and give an empty folder for it.

        Where the block fails, the folder is gone again.

        Raises:
            RequestError: the visitor, or all of them, are uploading too much at once.
            ResourceError: the disk has no room for it.
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

    def _make_room(self, there: list[_Upload], size: int, total: int, count: int | None = None) -> None:
        """Remove the oldest of those that are ``there``, until another fits."""
        under_way = [each for each in there if not each.complete]
        going = [each for each in there if each.complete]
        while sum(each.size for each in under_way + going) + size > total or (
            count is not None and len(under_way + going) >= count
        ):
            if not going:
                raise RequestError("too much is being uploaded at once; try again later")
            self._remove(going.pop(0))

    def _remove(self, upload: _Upload) -> None:
        if upload in self._uploads:
            self._uploads.remove(upload)
        shutil.rmtree(upload.folder, ignore_errors=True)  # a folder that was never made isn't there

    @contextmanager
    def open_page(self, visitor: str) -> Iterator[None]:
        """While the block runs, the visitor has a page open. With the last of them go the uploads."""
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
    """The file, where it lies in ``folder``, by its name first, so that the disk is asked about nothing else."""
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
    """A file's name as an upload keeps it: its last part, of letters that every disk takes, and not too long."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, ending = re.sub(r"[^\w .()+-]", "_", last).strip(". ").rpartition(".")
    stem, ending = (stem, f"{dot}{ending}"[:10]) if stem else (ending, "")
    while len(f"{stem}{ending}".encode()) > _LONGEST_NAME:
        stem = stem[:-1]
    return f"{stem}{ending}" or "picture"
