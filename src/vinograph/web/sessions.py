"""The open pages: what each waits for, and the pictures that it has drawn."""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from PIL import Image

from vinograph.a1111 import parameters_text
from vinograph.errors import RequestError, VinographError
from vinograph.images import save
from vinograph.result import Result
from vinograph.web import snippets
from vinograph.web.estimates import Estimates
from vinograph.web.gallery_store import GalleryStore
from vinograph.web.jobs import Drawer, DrawRequest, Job
from vinograph.web.live import Live
from vinograph.web.model_pool import Models
from vinograph.web.queue_list import PageQueue
from vinograph.web.uploads import MEGABYTE, Uploads

MOST_PAGES = 200  # at once; each has a thread while it waits for its drawing
_MOST_WAITING = MOST_PAGES // 2  # requests, so that threads are left for everything else
_MOST_OF_ONE = 16  # pages of one visitor; the oldest is closed for another
_MOST_PICTURES = 100  # of one page; the oldest go
_MOST_BYTES = 256 * MEGABYTE  # that these take on the disk
_MOST_RECALLED = 20  # pictures of the gallery that one page has shown; the oldest go
_RELOAD_SECONDS = 20.0  # in which a page that was closed may be opened again with its pictures


class SessionKey(NamedTuple):
    """The visitor, and Gradio's name for one of the visitor's open pages."""

    visitor: str
    session_hash: str


@dataclass(frozen=True, eq=False)  # Gradio tells one from another by its hash
class Picture:
    """A picture on the disk, and how it was drawn.

    ``inputs`` are the files that it was drawn from, by their names. ``python`` and ``shell`` draw
    it again. ``arguments`` and ``adapters`` are those of its request, without files. Pictures of
    one request have the same ``request_id``. ``gallery`` is its identifier in the gallery, empty
    where it isn't there.
    """

    file: Path
    size: tuple[int, int]
    prompt: str
    model: str
    seed: int | None
    timings: Mapping[str, float]
    python: str
    shell: str
    inputs: Mapping[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    gallery: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    adapters: Mapping[str, float] = field(default_factory=dict)
    request_id: str = ""

    @property
    def files(self) -> list[Path]:
        """The picture's file and those that it was drawn from."""
        return [self.file, *self.inputs.values()]

    @property
    def address(self) -> str:
        """The address of the picture's file on the page."""
        return address(self.file)

    @property
    def name(self) -> str:
        """The file name that a browser saves it under: the prompt's first words, and the seed."""
        words = "-".join(re.findall(r"\w+", self.prompt.lower())[:8]) or "picture"
        return f"{words}.png" if self.seed is None else f"{words}-{self.seed}.png"


def address(file: Path) -> str:
    """The address under which the page finds a file of a session."""
    return f"gradio_api/file={quote(str(file))}"


def file_at(address: str) -> str:
    """The path of the file under an address of the page; empty for other addresses."""
    _, found, path = address.partition("gradio_api/file=")
    return unquote(path) if found else ""


@dataclass(eq=False)
class Session:
    """One open page: its folder, what it waits for, and its pictures, the newest first.

    ``job`` is what a tab waits for that draws at once; ``queue`` and ``live`` draw beside that.
    """

    visitor: str
    folder: Path
    queue: PageQueue
    live: Live
    job: Job | None = None
    pictures: list[Picture] = field(default_factory=list)
    gallery: GalleryStore | None = None
    recalled: list[Picture] = field(default_factory=list)  # from the gallery, the latest first

    @property
    def waits(self) -> bool:
        """Whether the page waits for a job that has not ended."""
        return self.job is not None and not self.job.status.ended

    @property
    def waiting(self) -> int:
        """The number of jobs and requests that have not ended."""
        return self.waits + len(self.queue) + self.live.waits

    def add(self, models: Models, draw_request: DrawRequest, result: Result) -> list[Picture]:
        """Write a result's pictures into the session's history, of which the oldest may go."""
        request_id = uuid.uuid4().hex
        stored = (self._store(models, draw_request, result, each, request_id) for each in range(len(result.images)))
        added = [self._kept(picture) for picture in stored]
        before, self.pictures = self.pictures, added
        for picture in before[: _MOST_PICTURES - len(added)]:
            if _bytes([*self.pictures, picture]) > _MOST_BYTES:
                break
            self.pictures = [*self.pictures, picture]
        for file in {file for picture in before for file in picture.files} - self._files():
            shutil.rmtree(file.parent, ignore_errors=True)
        return added

    def of_request(self, picture: Picture) -> list[Picture]:
        """The pictures of the same request that are still there, in the order of their seeds."""
        return [each for each in self.pictures if each.request_id == picture.request_id]

    def _store(self, models: Models, draw_request: DrawRequest, result: Result, index: int, request_id: str) -> Picture:
        """Write one picture of a result, and note how it is drawn again."""
        pipe, model, call = models.get(draw_request.model), draw_request.model, draw_request.call
        source, device = models.source(model), models.device(model)
        image, seed = result.images[index], None if result.seeds is None else result.seeds[index]
        inputs = draw_request.input_files
        named = {**draw_request.arguments, **{name: path.name for name, path in inputs.items()}}
        arguments = dict(snippets.reproduction_arguments(pipe, call, named, seed))
        if draw_request.adapters:
            arguments[snippets.ADAPTERS] = dict(draw_request.adapters)
        metadata = result.metadata(index)
        parameters = parameters_text(metadata, pipe.options, pipe.model.manifest.scheduler)
        return Picture(
            file=self.write(image, metadata, parameters),
            size=image.size,
            prompt=str(draw_request.arguments.get("prompt", "")),
            model=model,
            seed=seed,
            timings=result.timings,
            python=snippets.python(source, device, call, arguments, "picture.png"),
            shell=snippets.shell(pipe, source, device, call, arguments, "picture.png"),
            inputs={path.name: path for path in inputs.values()},
            warnings=tuple(result.warnings),
            arguments={name: value for name, value in draw_request.arguments.items() if name not in inputs}
            | ({} if seed is None else {"seed": seed}),
            adapters=dict(draw_request.adapters),
            request_id=request_id,
        )

    def _kept(self, picture: Picture) -> Picture:
        """The picture, once it lies in the gallery, too; or with a warning that says why it doesn't."""
        if self.gallery is None:
            return picture
        try:
            return replace(picture, gallery=self.gallery.add(picture.file).identifier)
        except VinographError as error:
            warning = f"This picture is not in the gallery: {error}"
            return replace(picture, warnings=(*picture.warnings, warning))

    def recall(self, picture: Picture) -> Picture:
        """Copy a picture of the gallery into the session's folder, where the page finds it."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        shutil.copyfile(picture.file, folder / "picture.png")
        recalled = replace(picture, file=folder / "picture.png")
        before, self.recalled = self.recalled, [recalled, *self.recalled][:_MOST_RECALLED]
        for each in before[_MOST_RECALLED - 1 :]:
            shutil.rmtree(each.file.parent, ignore_errors=True)
        return recalled

    def discard(self, draw_request: DrawRequest) -> None:
        """Remove the request's init image and mask, unless a picture or a queued request has them."""
        queued = {file for each in self.queue.draw_requests for file in each.input_files.values()}
        for file in set(draw_request.input_files.values()) - self._files() - queued:
            shutil.rmtree(file.parent, ignore_errors=True)

    def _files(self) -> set[Path]:
        """The files of all pictures of the history."""
        return {file for picture in (*self.pictures, *self.recalled) for file in picture.files}

    def write(
        self,
        picture: Image.Image,
        metadata: Mapping[str, Any] | None = None,
        parameters: str | None = None,
        name: str = "picture.png",
    ) -> Path:
        """Write a PNG of that name, with its texts, into a folder of its own."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        save(picture, folder / name, metadata, parameters)
        return folder / name


def _bytes(pictures: Iterable[Picture]) -> int:
    """The size of the pictures' files, of which several may be drawn from the same ones."""
    files = {file for picture in pictures for file in picture.files}
    return sum(file.stat().st_size for file in files if file.exists())


class Sessions:
    """The sessions of all open pages."""

    def __init__(self, queue: Drawer, uploads: Uploads, gallery: GalleryStore | None = None) -> None:
        self._queue = queue
        self._uploads = uploads
        self._gallery = gallery
        self._left: dict[str, list[Session]] = {}  # by visitor: closed pages, which may have been reloaded
        self.estimates = Estimates()
        self._sessions: dict[SessionKey, Session] = {}  # the most recently used stands last
        self._lock = threading.Lock()

    def of(self, key: SessionKey) -> Session:
        """The session of a key, opened where there is none. Of too many the oldest is closed."""
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                session = self._open(key.visitor)
            self._sessions[key] = session
            own = [each for each in self._sessions if each.visitor == key.visitor]
            crowded = [own[0]] if len(own) > _MOST_OF_ONE else list(self._sessions)[:-MOST_PAGES]
        for each in crowded:
            self.close(each)
        return session

    def _open(self, visitor: str) -> Session:
        folder = self._uploads.folder_of(visitor) / uuid.uuid4().hex
        return Session(visitor, folder, *self._drawing_for(visitor), gallery=self._gallery)

    def _drawing_for(self, visitor: str) -> tuple[PageQueue, Live]:
        """What draws for a page that has just been opened."""

        def new_job(draw_request: DrawRequest) -> Job:
            return self._job(visitor, draw_request)

        return PageQueue(self._queue, new_job), Live(self._queue, new_job)

    def _job(self, visitor: str, *draw_requests: DrawRequest) -> Job:
        return Job(*draw_requests, visitor=visitor, watch=self.estimates.watch(draw_requests))

    def enqueue(self, key: SessionKey, *draw_requests: DrawRequest) -> None:
        """Put requests into the page's queue, whose :meth:`PageQueue.follow` draws them.

        Raises:
            RequestError: too many requests of this page, or of all, wait already.
        """
        session = self.of(key)
        with self._lock:
            self._check_waiting(len(draw_requests))
            session.queue.add(draw_requests)

    def _check_waiting(self, more: int) -> None:
        waiting = sum(each.waiting for each in self._sessions.values())
        if waiting + more > _MOST_WAITING:
            raise RequestError(f"{waiting} jobs are queued already; try again later")

    def begin(self, key: SessionKey, *draw_requests: DrawRequest) -> Job:
        """Queue a job, in place of the one that the page waited for before.

        Raises:
            RequestError: too many jobs wait already.
        """
        self.stop(key)
        session = self.of(key)
        with self._lock:
            self._check_waiting(1)
            job = session.job = self._job(key.visitor, *draw_requests)
            self._queue.add(job)
        return job

    def stop(self, key: SessionKey) -> None:
        """Stop the job that the page waits for."""
        self._stop(self.of(key))

    def _stop(self, session: Session) -> None:
        if session.job is not None and session.waits:
            self._queue.stop(session.job)

    def close(self, key: SessionKey) -> None:
        """Close a session: what it waits for is stopped, and its pictures are deleted."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            self._end(session)
            shutil.rmtree(session.folder, ignore_errors=True)  # there is none where nothing was drawn

    def _end(self, session: Session) -> None:
        """Stop all that is drawn for a page, and draw nothing more for it."""
        self._stop(session)
        session.queue.close()
        session.live.close()

    def leave(self, key: SessionKey) -> None:
        """Close the session of a page that was closed or is being loaded again.

        Its job is stopped. Its pictures stay for some seconds, in which :meth:`reopen` finds them.
        """
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is not None and session.pictures:
                self._left.setdefault(key.visitor, []).append(session)
        if session is None:
            return
        self._end(session)
        if not session.pictures:
            shutil.rmtree(session.folder, ignore_errors=True)  # there is none where nothing was written
            return
        timer = threading.Timer(_RELOAD_SECONDS, self._forget, (session,))
        timer.daemon = True
        timer.start()

    def _forget(self, session: Session) -> None:
        """Delete the pictures of a session that was left, unless it was opened again."""
        if self._take_back(session):
            shutil.rmtree(session.folder, ignore_errors=True)

    def _take_back(self, session: Session) -> bool:
        with self._lock:
            left = self._left.get(session.visitor, [])
            if session not in left:
                return False
            left.remove(session)
            if not left:
                del self._left[session.visitor]
            return True

    def reopen(self, key: SessionKey) -> Session:
        """The session of a page that has just been opened: the visitor's last one that was left, if any."""
        left = next((each for each in reversed(self._left.get(key.visitor, [])) if each.pictures), None)
        if left is not None and key not in self._sessions and self._take_back(left):
            left.job = None
            left.queue, left.live = self._drawing_for(key.visitor)
            with self._lock:
                self._sessions[key] = left
        return self.of(key)
