"""What a page has going on and has drawn, for as long as it is open."""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from vinograph.images import save
from vinograph.pipeline import Result
from vinograph.web import snippets
from vinograph.web.drawing import Job, Line, Order
from vinograph.web.models import Models

_MOST_PICTURES = 100  # of one visit; the oldest go


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
                )
            )
        before, self.pictures = self.pictures, [*drawn, *self.pictures][:_MOST_PICTURES]
        kept = {file for picture in self.pictures for file in picture.files}
        for file in {file for picture in before for file in picture.files} - kept:
            file.unlink()
        return drawn

    def write(self, picture: Image.Image, metadata: Mapping[str, Any] | None = None, name: str = "picture.png") -> Path:
        """Write a PNG of that name into a folder of its own."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        save(picture, folder / name, metadata)
        return folder / name


class Visits:
    """The open pages by their session's name."""

    def __init__(self, line: Line, folder: Path) -> None:
        self._line = line
        self._folder = folder
        self._open: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def of(self, session: str) -> Visit:
        """The visit of that session, a new one if it is."""
        with self._lock:
            return self._open.setdefault(session, Visit(self._folder / uuid.uuid4().hex))

    def begin(self, session: str, *orders: Order) -> Job:
        """Put a drawing in the line, in place of what the page waited for before."""
        self.stop(session)
        job = self.of(session).job = Job(*orders)
        self._line.add(job)
        return job

    def stop(self, session: str) -> None:
        """Stop what the page waits for."""
        job = self.of(session).job
        if job is not None and not job.news.ended:
            self._line.stop(job)

    def close(self, session: str) -> None:
        """The page was closed: nobody waits for its drawing any more, nor looks at its pictures."""
        self.stop(session)
        with self._lock:
            visit = self._open.pop(session)
        shutil.rmtree(visit.folder, ignore_errors=True)  # there is none where nothing was drawn
