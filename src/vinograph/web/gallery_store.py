"""The gallery: a folder of pictures that the page shows to all of its visitors.

In the folder, ``.thumbnails`` holds small copies, ``.trash`` what was deleted, and
``.favourites.json`` the places of favourites. Pictures are files with a date and a number.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from vinograph import folders, strict_json
from vinograph.errors import RequestError, ResourceError, VinographError
from vinograph.files import created, explained, write_atomically
from vinograph.images import READABLE, check_output, open_picture
from vinograph.web.gallery_index import NO_PICTURE, GalleryEntry, GalleryIndex

PAGE = 60  # pictures that are listed at once
_THUMBNAILS, _TRASH, _FAVOURITES = ".thumbnails", ".trash", ".favourites.json"
_THUMBNAIL_SIDE = 320  # pixels
_LARGEST_FAVOURITES = 20_000_000  # bytes
_NO_FOLLOWING = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True)
class Listing:
    """A part of the gallery: ``found`` pictures fit the search, of ``total``."""

    entries: Sequence[GalleryEntry]
    favourites: frozenset[str]
    found: int
    total: int
    notes: Sequence[str] = ()


class GalleryStore:
    """The pictures of a folder. Any thread may call it."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which is created where it isn't there.

        Raises:
            RequestError: nothing can be written there.
        """
        self.folder = _made(folders.expand(folder))
        self._index = GalleryIndex(self.folder)
        self._lock = threading.Lock()  # of the favourites and of names
        self._decoding = threading.Lock()  # one picture at a time, to save memory
        threading.Thread(target=self._prepare, name="gallery", daemon=True).start()

    def _prepare(self) -> None:
        """Read all headers before anybody asks, and delete thumbnails of pictures that are gone."""
        known = {f"{each.identifier}.webp" for each in self._index.entries(fresh=True)}
        folder = self.folder / _THUMBNAILS
        if not folder.is_symlink() and folder.is_dir():
            for each in folder.iterdir():
                if each.name not in known:
                    with contextlib.suppress(OSError):
                        each.unlink()

    def list(self, search: str = "", *, favourites: bool = False, after: str = "", count: int = PAGE) -> Listing:
        """Pictures that have all words of ``search``, the newest first, from behind the key ``after``."""
        entries = self._index.entries()
        places, note = self._read_favourites()
        words = search.casefold().split()
        fitting = [
            each
            for each in entries
            if (not favourites or each.place in places) and all(word in each.searched for word in words)
        ]
        begin = 0
        if after:
            modified, _, identifier = after.partition("-")
            key = (-int(modified), identifier)
            begin = sum(each.key <= key for each in fitting)
        notes = [*self._index.notes(), *([note] if note else [])]
        return Listing(fitting[begin : begin + count], frozenset(places), len(fitting), len(entries), notes)

    def get(self, identifier: str) -> GalleryEntry:
        """The entry of a picture.

        Raises:
            RequestError: there is no such picture.
        """
        return self._index.get(identifier)

    def file(self, entry: GalleryEntry) -> Path:
        """The file of an entry, which is still the one that was listed, with pixels that can be read.

        Raises:
            RequestError: it was changed, or is damaged.
        """
        self.thumbnail(entry)
        return self._checked(entry)

    def open(self, entry: GalleryEntry) -> BinaryIO:
        """The opened file of an entry, once its pixels could be read.

        Raises:
            RequestError: as in :meth:`file`.
        """
        try:
            return _open(self.file(entry))
        except OSError as error:
            raise RequestError(NO_PICTURE) from error

    def thumbnail(self, entry: GalleryEntry) -> bytes:
        """A small copy of the picture, as WebP; it is made once.

        Raises:
            RequestError: the picture is gone or damaged.
        """
        if (kept := self._kept_thumbnail(entry)) is not None:
            return kept
        with self._decoding:
            if (kept := self._kept_thumbnail(entry)) is not None:  # another thread has made it
                return kept
            file = self._checked(entry)
            try:
                small = _shrunk(file)
            except RequestError as error:
                self._index.drop(entry)
                raise RequestError(NO_PICTURE) from error
            with contextlib.suppress(OSError, VinographError):  # on a full disk it is made again each time
                write_atomically(self._hidden(_THUMBNAILS) / f"{entry.identifier}.webp", small)
        return small

    def _kept_thumbnail(self, entry: GalleryEntry) -> bytes | None:
        folder = self.folder / _THUMBNAILS
        try:
            if not folder.is_symlink():
                with _open(folder / f"{entry.identifier}.webp") as stream:
                    return stream.read()
        except OSError:  # it isn't there yet
            pass
        return None

    def _checked(self, entry: GalleryEntry) -> Path:
        """The entry's file, where neither it nor a folder on the way has become a link."""
        file = self.folder / entry.place
        try:
            state = file.lstat()
            unchanged = (state.st_mtime_ns, state.st_size) == (entry.modified, entry.bytes)
            if stat.S_ISREG(state.st_mode) and unchanged and file.resolve(strict=True) == file:
                return file
        except (OSError, RuntimeError):
            pass
        raise RequestError(NO_PICTURE)

    def add(self, picture: Path) -> GalleryEntry:
        """Copy a finished PNG file into the gallery, whole or not at all, under a name that is free.

        Raises:
            RequestError: the gallery can't be written.
            ResourceError: the disk is full.
        """
        day = datetime.datetime.now().astimezone().date().isoformat()
        with self._lock:
            number = self._highest(day) + 1
            while True:
                target = self.folder / f"{day}-{number:04}.png"
                with explained(target):
                    try:
                        with created(target) as temporary:
                            shutil.copyfile(picture, temporary)
                        break
                    except FileExistsError:  # another process has taken the name in the meantime
                        number += 1
        found = next((each for each in self._index.entries(fresh=True) if each.place == target.name), None)
        if found is None:  # somebody has moved it at once, or the gallery has too many files
            raise RequestError(NO_PICTURE)
        return found

    def _highest(self, day: str) -> int:
        """The highest number among the pictures of a day."""
        pattern = re.compile(rf"{day}-(\d{{1,15}})\.\w+")
        with explained(self.folder):
            numbers = [int(found[1]) for file in self.folder.iterdir() if (found := pattern.fullmatch(file.name))]
        return max(numbers, default=0)

    def delete(self, identifiers: Iterable[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Move pictures into the folder ``.trash``; those that are done, and what went wrong."""
        done, problems = [], []
        for identifier in identifiers:
            try:
                entry = self.get(identifier)
                source = self._checked(entry)
                unique = f"{source.stem[:100]}-{uuid.uuid4().hex[:8]}{source.suffix}"
                with explained(source):
                    source.rename(self._hidden(_TRASH) / unique)
            except (RequestError, ResourceError) as error:
                problems.append(str(error).replace(f"{self.folder}/", ""))
                continue
            done.append(identifier)
            with contextlib.suppress(OSError):
                (self.folder / _THUMBNAILS / f"{identifier}.webp").unlink()
        self._index.entries(fresh=True)
        return done, problems

    def set_favourite(self, identifier: str, favourite: bool) -> None:
        """Note that a picture is a favourite, or no longer one.

        Raises:
            RequestError: there is no such picture, or the note can't be written.
            ResourceError: the disk is full.
        """
        entry, file = self.get(identifier), self.folder / _FAVOURITES
        with self._lock:
            places, note = self._read_favourites()
            if note:
                with explained(file):
                    file.rename(file.with_name(f"{_FAVOURITES}.damaged-{uuid.uuid4().hex[:8]}"))
            places = places | {entry.place} if favourite else places - {entry.place}
            content = json.dumps({"favourites": sorted(places)}, ensure_ascii=False, indent=1)
            with explained(file):
                write_atomically(file, content.encode("utf-8", "surrogateescape"))

    def _read_favourites(self) -> tuple[set[str], str]:
        """The places of favourites, and a note where the file can't be read."""
        file = self.folder / _FAVOURITES
        try:
            with _open(file) as stream:
                content = strict_json.parse_object(stream.read(), largest=_LARGEST_FAVOURITES)
            places = content["favourites"]
            if isinstance(places, list) and all(isinstance(each, str) for each in places):
                return set(places), ""
        except FileNotFoundError:
            return set(), ""
        except (OSError, KeyError, strict_json.JsonError):
            pass
        return set(), f"{_FAVOURITES} can't be read; with the next favourite it is put aside, and a new one begins"

    def _hidden(self, name: str) -> Path:
        """One of the gallery's own folders, made where it isn't there.

        Raises:
            RequestError: it can't be made, or is a link.
        """
        folder = self.folder / name
        with explained(folder):
            folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise RequestError(f"{name} is a link; remove it, so that the gallery makes a folder")
        return folder


def _made(folder: Path) -> Path:
    """The folder without links in its path, made where it isn't there, and one that can be written."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    resolved = folder.resolve()
    check_output(resolved / f"{uuid.uuid4().hex}.png")
    return resolved


def _open(file: Path) -> BinaryIO:
    """A regular file, opened to be read; a link is not followed.

    Raises:
        OSError: it is no regular file, or can't be read.
    """
    stream = open(os.open(file, os.O_RDONLY | _NO_FOLLOWING), "rb")  # noqa: PTH123, SIM115
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise FileNotFoundError(file)
    return stream


def _shrunk(file: Path) -> bytes:
    """A picture's thumbnail as WebP.

    Raises:
        RequestError: its pixels can't be read.
    """
    picture = open_picture(file, "picture", formats=READABLE)
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    picture.convert("RGB").save(content, "WEBP", quality=80)
    return content.getvalue()
