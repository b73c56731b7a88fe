"""One drawing at a time: who waits, what can be seen meanwhile, and how it is stopped."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vinograph.errors import VinographError
from vinograph.families.contract import Step
from vinograph.result import Result
from vinograph.web.models import Models

_PREVIEW_SHARE = 4  # previews take at most one part in so many of a drawing's time
_PREVIEW_EVERY = 0.08  # seconds; more often than that nobody sees


@dataclass(frozen=True)
class Order:
    """What one model is asked for: a ``call`` of its pipeline, and the arguments."""

    model: str
    call: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class News:
    """How a job stands. ``place`` is how many drawings come before it; it is being drawn where that is 0.

    ``left`` is an estimate of the seconds to the end of the order under way; None where there is nothing to go by.
    ``preview`` is the last one of that order. ``results`` are of the orders that are done.
    """

    place: int = 0
    step: Step | None = None
    left: float | None = None
    preview: Image.Image | None = None
    results: tuple[Result, ...] = ()
    error: Exception | None = None
    stopped: bool = False
    ended: bool = False


class Job:
    """Orders that are drawn one after the other in one turn."""

    def __init__(self, *orders: Order) -> None:
        self.orders = orders
        self.stopping = threading.Event()
        self._news = News()
        self._shows: News | None = None  # the last that has another preview than the one before
        self._changed = threading.Condition()

    def stop(self) -> None:
        """Let the drawing end after the step under way, or without a turn if it still waits for one."""
        self.stopping.set()

    def tell(self, **changes: Any) -> None:
        """Change what the job's followers see."""
        with self._changed:
            before, self._news = self._news, dataclasses.replace(self._news, **changes)
            if self._news.preview is not before.preview and self._news.preview is not None:
                self._shows = self._news
            self._changed.notify_all()

    @property
    def news(self) -> News:
        """How it stands now."""
        return self._news

    def follow(self) -> Iterator[News]:
        """How the job stands, each time that this has changed.

        Of what changes while nobody asks, only the last preview is shown, and how it then stands.
        """
        seen = shown = self._news
        yield seen
        while not seen.ended:
            with self._changed:
                while self._news is seen:
                    self._changed.wait()
                seen, shows = self._news, self._shows
            if shows is not None and shows is not shown and shows is not seen:
                yield shows
            shown = shows or shown
            yield seen


class Line:
    """The jobs in the order in which they came, and the one thread that draws them."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._waiting: deque[Job] = deque()
        self._drawn: Job | None = None
        self._changed = threading.Condition()
        self._paces: dict[tuple[str, str], Mapping[str, float]] = {}
        self._ending = False
        self._worker = threading.Thread(target=self._work, name="drawing", daemon=True)
        self._worker.start()

    def add(self, job: Job) -> None:
        """Put a job at the end of the line."""
        with self._changed:
            self._waiting.append(job)
            self._tell_places()
            self._changed.notify_all()

    def stop(self, job: Job) -> None:
        """Stop a job, and let it leave the line if it waits."""
        with self._changed:
            job.stop()
            if job in self._waiting:
                self._waiting.remove(job)
                job.tell(stopped=True, ended=True)
                self._tell_places()

    def end(self) -> None:
        """Stop everything, and wait for the step under way."""
        with self._changed:
            self._ending = True
            for job in (*self._waiting, *([self._drawn] if self._drawn else [])):
                self.stop(job)
            self._changed.notify_all()
        self._worker.join()

    def _tell_places(self) -> None:
        drawing = 1 if self._drawn is not None else 0
        for index, job in enumerate(self._waiting):
            if job.news.place != index + drawing:
                job.tell(place=index + drawing)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._drawn = None
                self._tell_places()
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if self._ending:
                    return
                self._drawn = job = self._waiting.popleft()
                job.tell(place=0)
                self._tell_places()
            self._draw(job)

    def _draw(self, job: Job) -> None:
        try:
            for order in job.orders:
                job.tell(step=None, left=None, preview=None)
                if (result := self._drawing(job, order)) is None:
                    break
                job.tell(results=(*job.news.results, result))
            job.tell(stopped=len(job.news.results) < len(job.orders), ended=True)
        except Exception as error:  # whatever it is, the page that asked says so, and the line goes on
            if not isinstance(error, VinographError):
                traceback.print_exception(error)
            job.tell(error=error, ended=True)

    def _drawing(self, job: Job, order: Order) -> Result | None:
        """Draw one order; None where it was stopped."""
        pace = _Pace(self._paces.get((order.model, order.call), {}))
        previews = _Previews()
        pipe = self._models.draw_with(order.model)
        with closing(pipe.stream(call=order.call, **order.arguments)) as steps:
            for each in steps:
                if job.stopping.is_set():
                    return None
                if isinstance(each, Result):
                    self._paces[order.model, order.call] = each.timings
                    return each
                job.tell(step=each, left=pace.left(each), preview=previews.of(each) or job.news.preview)
        raise AssertionError("a stream ends with its result")


class _Pace:
    """How long a drawing will still take.

    Of its stage that goes by the steps so far, and of the stages to come by what they took the last time.
    """

    def __init__(self, before: Mapping[str, float]) -> None:
        self._before = before
        self._stage = ""
        self._first = 0.0

    def left(self, step: Step) -> float | None:
        """Seconds from the end of ``step`` on."""
        now = time.perf_counter()
        if step.stage != self._stage:
            self._stage, self._first = step.stage, now
        if step.index == 1 and step.total > 1:
            return None
        each = (now - self._first) / max(1, step.index - 1)
        stages = list(self._before)
        to_come = stages[stages.index(step.stage) + 1 :] if step.stage in stages else []
        return each * (step.total - step.index) + sum(self._before[name] for name in to_come)


class _Previews:
    """Previews of the steps, as often as they take a small share of the drawing's time."""

    def __init__(self) -> None:
        self._next = 0.0

    def of(self, step: Step) -> Image.Image | None:
        start = time.perf_counter()
        if start < self._next:
            return None
        preview = step.preview()
        end = time.perf_counter()
        if preview is not None:
            self._next = end + max(_PREVIEW_EVERY, (_PREVIEW_SHARE - 1) * (end - start))
        return preview


def said(error: Exception) -> str:
    """What a drawing's ``error`` means to the one who asked for it."""
    if isinstance(error, VinographError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for this: draw fewer or smaller pictures."
    return f"A defect of Vinograph stopped the drawing ({type(error).__name__}). The terminal has the details."
