"""The queue of jobs, which are drawn one at a time, followed by their pages, and stopped."""

from __future__ import annotations

import dataclasses
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from vinograph.adapters.adaptation import NO_ADAPTERS, Adaptation
from vinograph.errors import VinographError
from vinograph.families.contract import Step
from vinograph.pipeline import use_adaptation
from vinograph.result import Result
from vinograph.web.model_pool import ModelPool
from vinograph.web.step_progress import PreviewThrottle, RemainingTime


@dataclass(frozen=True)
class DrawRequest:
    """A call of a model's pipeline: the model's reference, the call's name, and its arguments.

    ``adaptation`` has the adapters to draw with, which were compared with the model.
    """

    model: str
    call: str
    arguments: Mapping[str, Any]
    adaptation: Adaptation = NO_ADAPTERS

    @property
    def adapters(self) -> Mapping[str, float]:
        """The adapters by name, with their weights."""
        return self.adaptation.weights

    @property
    def input_files(self) -> dict[str, Path]:
        """The files of the init image and the mask, by their arguments' names."""
        return {name: Path(self.arguments[name]) for name in ("image", "mask_image") if name in self.arguments}


@dataclass(frozen=True)
class JobStatus:
    """The state of a job, as its page shows it.

    ``place`` is how many jobs come before it in the queue, 0 once it is drawn. ``step``,
    ``preview`` and ``seconds_left`` are of the request under way; the last is an estimate, None
    where there is nothing to estimate from. ``results`` are of the requests that are done.
    """

    place: int = 0
    step: Step | None = None
    seconds_left: float | None = None
    preview: Image.Image | None = None
    results: tuple[Result, ...] = ()
    error: Exception | None = None
    stopped: bool = False
    ended: bool = False


def _ignore(_status: JobStatus) -> None:
    """Nobody watches the job."""


class Job:
    """Requests that are drawn one after the other, without another job in between.

    ``visitor`` is whose turn it takes. ``watch`` is called with every status, also where nobody
    follows the job; it must be quick.
    """

    def __init__(
        self, *draw_requests: DrawRequest, visitor: str = "", watch: Callable[[JobStatus], None] = _ignore
    ) -> None:
        self.draw_requests = draw_requests
        self.visitor = visitor
        self._watch = watch
        self.stopping = threading.Event()
        self._status = JobStatus()
        self._latest_preview: JobStatus | None = None  # the status that brought it
        self._changed = threading.Condition()

    def stop(self) -> None:
        """Have the job end after the step under way, or at once where it is still queued."""
        self.stopping.set()

    def update(self, **changes: Any) -> None:
        """Change the job's status, and wake its followers."""
        with self._changed:
            before, self._status = self._status, dataclasses.replace(self._status, **changes)
            if self._status.preview is not before.preview and self._status.preview is not None:
                self._latest_preview = self._status
            self._watch(self._status)
            self._changed.notify_all()

    @property
    def status(self) -> JobStatus:
        """The job's state now."""
        return self._status

    def follow(self) -> Iterator[JobStatus]:
        """Yield the job's status each time that it has changed, until it has ended.

        A follower that was busy meanwhile gets the status with the latest preview, then the present
        one.
        """
        seen = shown = self._status
        yield seen
        while not seen.ended:
            with self._changed:
                while self._status is seen:
                    self._changed.wait()
                seen, latest_preview = self._status, self._latest_preview
            if latest_preview is not None and latest_preview is not shown and latest_preview is not seen:
                yield latest_preview
            shown = latest_preview or shown
            yield seen


class Drawer(Protocol):
    """Draws jobs one at a time. Any thread may call it."""

    def add(self, job: Job) -> None:
        """Put a job into the queue."""
        ...

    def stop(self, job: Job) -> None:
        """Stop a job; one that waits leaves the queue."""
        ...

    def end(self) -> None:
        """Stop all jobs, and wait for the step under way."""
        ...


class Queue:
    """The jobs that wait, and the one thread that draws them.

    Visitors take turns: the next job is of the visitor who was served longest ago. Jobs of one
    visitor, and those of visitors who were never served, keep the order of their arrival.
    """

    def __init__(self, models: ModelPool) -> None:
        self._models = models
        self._waiting: list[Job] = []  # in the order of their turns
        self._served: list[str] = []  # visitors, the one who was served last stands last
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._last_timings: dict[tuple[str, str], Mapping[str, float]] = {}
        self._ending = False
        self._worker = threading.Thread(target=self._work, name="drawing", daemon=True)
        self._worker.start()

    def add(self, job: Job) -> None:
        """Put a job into the queue, at its visitor's turn."""
        with self._changed:
            self._waiting = in_turn([*self._waiting, job], self._served)
            self._update_places()
            self._changed.notify_all()

    def stop(self, job: Job) -> None:
        """Stop a job; one that waits leaves the queue."""
        with self._changed:
            job.stop()
            if job in self._waiting:
                self._waiting.remove(job)
                job.update(stopped=True, ended=True)
                self._update_places()

    def end(self) -> None:
        """Stop all jobs, and wait for the step under way."""
        with self._changed:
            self._ending = True
            for job in (*self._waiting, *([self._running] if self._running else [])):
                self.stop(job)
            self._changed.notify_all()
        self._worker.join()

    def _update_places(self) -> None:
        running = 1 if self._running is not None else 0
        for index, job in enumerate(self._waiting):
            if job.status.place != index + running:
                job.update(place=index + running)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._update_places()
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if self._ending:
                    return
                self._running = job = self._waiting.pop(0)
                waiting = {each.visitor for each in self._waiting}  # of the others nothing need be known
                self._served = [each for each in self._served if each in waiting and each != job.visitor]
                self._served.append(job.visitor)
                job.update(place=0)
                self._update_places()
            self._run(job)

    def _run(self, job: Job) -> None:
        try:
            for draw_request in job.draw_requests:
                job.update(step=None, seconds_left=None, preview=None)
                if (result := self._draw(job, draw_request)) is None:
                    break
                job.update(results=(*job.status.results, result))
            job.update(stopped=len(job.status.results) < len(job.draw_requests), ended=True)
        except Exception as error:  # the page shows any error, and the queue goes on with the next job
            if not isinstance(error, VinographError):
                traceback.print_exception(error)
            job.update(error=error, ended=True)

    def _draw(self, job: Job, draw_request: DrawRequest) -> Result | None:
        """Draw one request of a job; None where the job was stopped."""
        key = draw_request.model, draw_request.call
        remaining = RemainingTime(self._last_timings.get(key, {}))
        previews = PreviewThrottle()
        pipe = self._models.acquire(draw_request.model)
        if dict(pipe.adapters) != dict(draw_request.adapters):
            use_adaptation(pipe, draw_request.adaptation)
        with closing(pipe.stream(call=draw_request.call, **draw_request.arguments)) as steps:
            for each in steps:
                if job.stopping.is_set():
                    return None
                if isinstance(each, Result):
                    self._last_timings[key] = each.timings
                    return each
                preview = previews.of(each) or job.status.preview
                job.update(step=each, seconds_left=remaining.after(each), preview=preview)
        raise AssertionError("a stream ends with its result")


def in_turn(jobs: Sequence[Job], served: Sequence[str]) -> list[Job]:
    """The jobs as they are drawn when visitors take turns.

    ``served`` are visitors who had their turn, the latest last; the others come before them.
    """
    turns = {visitor: index - len(served) for index, visitor in enumerate(served)}
    ordered: list[Job] = []
    remaining = list(jobs)
    for turn in range(len(jobs)):
        job = min(remaining, key=lambda each: turns.get(each.visitor, -len(served) - 1))
        remaining.remove(job)
        ordered.append(job)
        turns[job.visitor] = turn
    return ordered


def error_message(error: Exception) -> str:
    """What the page says of a job's ``error``."""
    if isinstance(error, VinographError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for this: draw fewer or smaller pictures."
    return f"A defect of Vinograph stopped the drawing ({type(error).__name__}). The terminal has the details."
