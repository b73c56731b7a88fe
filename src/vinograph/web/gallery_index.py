"""The pictures in a gallery's folder: what their headers say, read once for each file.

Only regular files in plain folders count. Links are never followed, and hidden names are passed
over. A file is listed by an identifier of its place and its state, so that no address holds a path.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vinograph.errors import RequestError
from vinograph.images import MAX_PIXELS, READABLE, open_header
from vinograph.picture_recipe import Recipe, recipe_in

NO_PICTURE = "the gallery has no such picture"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_MOST_FILES = 50_000
_DEEPEST = 4  # folders below the gallery's
_LONGEST_PROMPT = 2000  # characters that are kept to be searched and shown
_NAMED = 3  # files that a note names
_SECONDS_BETWEEN_SCANS = 0.5


@dataclass(frozen=True)
class GalleryEntry:
    """A picture of the gallery.

    ``place`` is the file's path within the gallery, with slashes. ``modified`` is in nanoseconds,
    ``kind`` is PIL's name of the format, ``size`` width and height in pixels.
    """

    identifier: str
    place: str
    modified: int
    bytes: int
    kind: str
    size: tuple[int, int]
    prompt: str = ""
    model: str = ""
    seed: str = ""

    @property
    def key(self) -> tuple[int, str]:
        """Sorts entries with the newest first."""
        return (-self.modified, self.identifier)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.place.rpartition("/")[2]

    @property
    def searched(self) -> str:
        """The text that a search looks in."""
        return f"{self.prompt}\n{self.model}\n{self.seed}\n{self.place}".casefold()


class GalleryIndex:
    """The entries of all pictures below ``folder``, which follow what is added and removed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: dict[str, GalleryEntry] = {}  # by identifier
        self._unreadable: dict[str, str] = {}  # reasons, by identifier
        self._sorted: list[GalleryEntry] = []
        self._notes: list[str] = []
        self._scanned = -1e9
        self._lock = threading.Lock()

    def entries(self, *, fresh: bool = False) -> list[GalleryEntry]:
        """All entries, the newest first. ``fresh`` looks at the folder even if that was just done."""
        with self._lock:
            if fresh or time.monotonic() - self._scanned > _SECONDS_BETWEEN_SCANS:
                self._scan()
                self._scanned = time.monotonic()
            return self._sorted

    def get(self, identifier: str) -> GalleryEntry:
        """The entry of an identifier.

        Raises:
            RequestError: there is none.
        """
        with self._lock:
            entry = self._entries.get(identifier)
        if entry is None:
            raise RequestError(NO_PICTURE)
        return entry

    def notes(self) -> list[str]:
        """What was skipped in the last scan, and why."""
        with self._lock:
            damaged = [f"{place} is damaged" for place in self._unreadable.values()]
            return [*self._notes, *_together(damaged)]

    def drop(self, entry: GalleryEntry) -> None:
        """Take out the entry of a file whose pixels can't be read."""
        with self._lock:
            if self._entries.pop(entry.identifier, None) is not None:
                self._unreadable[entry.identifier] = entry.place
                self._sorted = sorted(self._entries.values(), key=lambda each: each.key)

    def _scan(self) -> None:
        found: dict[str, GalleryEntry] = {}
        unreadable: dict[str, str] = {}
        links: list[str] = []
        files = _files(self.folder, "", 0, links)
        too_many = False
        for count, (place, state) in enumerate(files):
            if count >= _MOST_FILES:
                too_many = True
                break
            identifier = _identifier(place, state)
            if identifier in self._unreadable:
                unreadable[identifier] = place
            elif identifier in self._entries:
                found[identifier] = self._entries[identifier]
            else:
                entry = _read(self.folder, place, state, identifier)
                if entry is None:
                    unreadable[identifier] = place
                else:
                    found[identifier] = entry
        if found.keys() != self._entries.keys():
            self._sorted = sorted(found.values(), key=lambda each: each.key)
        self._entries, self._unreadable = found, unreadable
        self._notes = _together([f"{place} is a link" for place in links])
        if too_many:
            self._notes.append(f"the folder has more than {_MOST_FILES:,} pictures; the others are not shown")


def recipe_of(file: Path) -> Recipe | None:
    """What the header of a picture file says of how it was drawn. No pixel is decoded.

    Raises:
        RequestError: it is no picture.
    """
    with open_header(file, file.name, READABLE) as picture:
        return recipe_in(picture)


def _files(folder: Path, place: str, depth: int, links: list[str]) -> Iterator[tuple[str, os.stat_result]]:
    """The places of picture files below a folder; of links only their places are noted."""
    try:
        with os.scandir(folder) as found:
            items = sorted(found, key=lambda each: each.name, reverse=True)  # the latest days first
    except OSError:  # it was deleted in the meantime, or this user may not read it
        return
    for each in items:
        if each.name.startswith(".") or not each.name.isprintable():
            continue
        inside = f"{place}{each.name}"
        try:
            state = each.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(state.st_mode) and depth < _DEEPEST:
            yield from _files(Path(each.path), f"{inside}/", depth + 1, links)
        elif each.name.lower().endswith(ENDINGS):
            if stat.S_ISREG(state.st_mode):
                yield inside, state
            elif stat.S_ISLNK(state.st_mode):
                links.append(inside)


def _identifier(place: str, state: os.stat_result) -> str:
    """A name for a file in its present state: another one, once it is changed."""
    told = f"{place}\0{state.st_mtime_ns}\0{state.st_size}\0{state.st_ino}"
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _read(folder: Path, place: str, state: os.stat_result, identifier: str) -> GalleryEntry | None:
    """The entry of a file; None if its header is no picture's, or the picture is too large."""
    try:
        with open_header(folder / place, place, READABLE) as picture:
            kind, size, recipe = str(picture.format), picture.size, recipe_in(picture)
    except (RequestError, OSError):
        return None
    if size[0] * size[1] > MAX_PIXELS or 0 in size:
        return None
    prompt, model, seed = ("", "", "") if recipe is None else _texts(recipe)
    return GalleryEntry(identifier, place, state.st_mtime_ns, state.st_size, kind, size, prompt, model, seed)


def _texts(recipe: Recipe) -> tuple[str, str, str]:
    """Prompt, model and seed of a recipe, as they are shown and searched."""
    if recipe.infotext is not None:
        prompt, seed = recipe.infotext.prompt, recipe.infotext.fields.get("Seed", "")
    else:
        request: Mapping[str, object] = recipe.request or {}
        prompt, seed = str(request.get("prompt", "")), str(request.get("seed", ""))
    return _shown(prompt, _LONGEST_PROMPT), _shown(recipe.model or "", 100), _shown(seed, 20)


def _shown(text: str, most: int) -> str:
    """A text of a file without characters that JSON can't carry, cut at its ``most`` characters."""
    return text[:most].encode("utf-8", "replace").decode("utf-8")


def _together(texts: list[str]) -> list[str]:
    """One note for several skipped files, which names the first of them."""
    if not texts:
        return []
    texts = sorted(texts)
    more = f" and {len(texts) - _NAMED:,} more" if len(texts) > _NAMED else ""
    return [f"Not shown: {'; '.join(texts[:_NAMED])}{more}"]
