"""What a page has going on and has drawn, for as long as it is open."""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from PIL import Image

from vinograph.errors import RequestError
from vinograph.images import save
from vinograph.result import Result
from vinograph.web import snippets
from vinograph.web.drawing import Job, Line, Order
from vinograph.web.models import Models
from vinograph.web.uploads import MEGABYTE, Uploads

MOST_PAGES = 200  # at once; each has a thread while it waits for its drawing
_MOST_WAITING = MOST_PAGES // 2  # drawings, so that threads are left for everything else
_MOST_OF_ONE = 16  # pages of one visitor, and drawings that wait for it
_MOST_PICTURES = 100  # of one page; the oldest go
_MOST_BYTES = 256 * MEGABYTE  # that these take on the disk


class Who(NamedTuple):
    """Who asks: the visitor, and which of the visitor's pages."""

    visitor: str
    session: str


@dataclass(frozen=True)
class Picture:
    """A picture on this disk, and what there is to say about it. ``beside`` has the files that it was drawn from."""

    file: Path
    size: tuple[int, int]
    prompt: str
    model: str
    seed: int | None
    timings: Mapping[str, float]
    python: str
    shell: str
    beside: Mapping[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All that it takes on the disk."""
        return [self.file, *self.beside.values()]

    @property
    def address(self) -> str:
        """Where the page finds it."""
        return address(self.file)

    @property
    def name(self) -> str:
        """What it is called when it is saved."""
        words = "-".join(re.findall(r"\w+", self.prompt.lower())[:8]) or "picture"
        return f"{words}.png" if self.seed is None else f"{words}-{self.seed}.png"


def address(file: Path) -> str:
    """Where a page finds a file in the visits' folder."""
    return f"gradio_api/file={quote(str(file))}"


@dataclass
class Visit:
    """One open page: its folder, the job that it waits for, and its pictures, the newest first."""

    visitor: str
    folder: Path
    job: Job | None = None
    pictures: list[Picture] = field(default_factory=list)

    def keep(self, models: Models, order: Order, result: Result) -> list[Picture]:
        """Write the result's pictures, with what draws each again."""
        pipe = models.look_at(order.model)
        beside = {name: Path(order.arguments[name]) for name in ("image", "mask_image") if name in order.arguments}
        named = {**order.arguments, **{name: path.name for name, path in beside.items()}}
        drawn = []
        for index, picture in enumerate(result.images):
            seed = None if result.seeds is None else result.seeds[index]
            again = snippets.arguments_again(pipe, order.call, named, seed)
            drawn.append(
                Picture(
                    file=self.write(picture, result.metadata(index)),
                    size=picture.size,
                    prompt=str(order.arguments.get("prompt", "")),
                    model=order.model,
                    seed=seed,
                    timings=result.timings,
                    python=snippets.python(order.model, models.device, order.call, again, "picture.png"),
                    shell=snippets.shell(pipe, order.model, models.device, order.call, again, "picture.png"),
                    beside={path.name: path for path in beside.values()},
                    warnings=tuple(result.warnings),
                )
            )
        before, self.pictures = self.pictures, drawn
        for picture in before[: _MOST_PICTURES - len(drawn)]:
            if self._size([*self.pictures, picture]) > _MOST_BYTES:
                break
            self.pictures = [*self.pictures, picture]
        kept = {file for picture in self.pictures for file in picture.files}
        for file in {file for picture in before for file in picture.files} - kept:
            shutil.rmtree(file.parent, ignore_errors=True)
        return drawn

    def _size(self, pictures: Iterable[Picture]) -> int:
        files = {file for picture in pictures for file in picture.files}
        return sum(file.stat().st_size for file in files if file.exists())

    def discard(self, order: Order) -> None:
        """Remove the files that ``order`` was to be drawn from, unless a picture that was drawn from them is there."""
        kept = {file for picture in self.pictures for file in picture.files}
        for name in ("image", "mask_image"):
            file = order.arguments.get(name)
            if file is not None and Path(file) not in kept:
                shutil.rmtree(Path(file).parent, ignore_errors=True)

    def write(self, picture: Image.Image, metadata: Mapping[str, Any] | None = None, name: str = "picture.png") -> Path:
        """Write a PNG of that name into a folder of its own."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        save(picture, folder / name, metadata)
        return folder / name


class Visits:
    """The open pages by their visitor and the session's name."""

    def __init__(self, line: Line, uploads: Uploads) -> None:
        self._line = line
        self._uploads = uploads
        self._open: dict[Who, Visit] = {}  # the one that was asked for last stands last
        self._lock = threading.Lock()

    def of(self, who: Who) -> Visit:
        """The visit of that session, a new one if it is. Where there are too many, the oldest is closed."""
        with self._lock:
            visit = self._open.pop(who, None)
            if visit is None:
                visit = Visit(who.visitor, self._uploads.folder_of(who.visitor) / uuid.uuid4().hex)
            self._open[who] = visit
            own = [each for each in self._open if each.visitor == who.visitor]
            crowded = [own[0]] if len(own) > _MOST_OF_ONE else list(self._open)[:-MOST_PAGES]
        for each in crowded:
            self.close(each)
        return visit

    def begin(self, who: Who, *orders: Order) -> Job:
        """Put a drawing in the line, in place of what the page waited for before.

        Raises:
            RequestError: too many wait already.
        """
        self.stop(who)
        visit = self.of(who)
        with self._lock:
            waiting = [each for each in self._open.values() if each.job is not None and not each.job.news.ended]
            if len(waiting) >= _MOST_WAITING:
                raise RequestError(f"{len(waiting)} drawings wait already; try again later")
            job = visit.job = Job(*orders)
            self._line.add(job)
        return job

    def stop(self, who: Who) -> None:
        """Stop what the page waits for."""
        self._stop(self.of(who))

    def _stop(self, visit: Visit) -> None:
        if visit.job is not None and not visit.job.news.ended:
            self._line.stop(visit.job)

    def close(self, who: Who) -> None:
        """The page was closed: nobody waits for its drawing any more, nor looks at its pictures."""
        with self._lock:
            visit = self._open.pop(who, None)
        if visit is not None:
            self._stop(visit)
            shutil.rmtree(visit.folder, ignore_errors=True)  # there is none where nothing was drawn
