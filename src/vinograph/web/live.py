"""Live drawing: only the newest request of a page is drawn, and what it replaces is stopped."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vinograph.pipeline import Pipeline
from vinograph.result import Result
from vinograph.web.jobs import Drawer, DrawRequest, Job, JobStatus

MOST_STEPS = 4
"""Models whose own number of steps is at most this are quick enough to draw while one types."""

_CALL = "generate"


@dataclass(frozen=True)
class LivePicture:
    """The last picture that was drawn live: it is in no history until it is kept."""

    draw_request: DrawRequest
    result: Result


def is_quick(pipe: Pipeline) -> bool:
    """Whether the model draws in so few steps that live drawing is of use."""
    steps = pipe.calls[_CALL].takes.get(pipe.options.get("steps", ""))
    return isinstance(steps, int) and steps <= MOST_STEPS


class Live:
    """The live drawing of one page. Any thread may call it.

    At most one job waits or draws for it: a new request stops the one before, within a step.
    ``seed`` is the page's own, so that a picture changes only with its request.
    """

    def __init__(self, drawer: Drawer, new_job: Callable[[DrawRequest], Job]) -> None:
        """Draw by ``drawer``; ``new_job`` makes the jobs."""
        self._drawer = drawer
        self._new_job = new_job
        self._newest: object = None
        self._job: Job | None = None
        self._closed = False
        self._lock = threading.Lock()
        self.picture: LivePicture | None = None
        self.seed = secrets.randbits(32)

    @property
    def waits(self) -> bool:
        """Whether a job of it has not ended."""
        job = self._job
        return job is not None and not job.status.ended

    def begin(self) -> object:
        """Announce a request, which replaces those before. Hand the answer to :meth:`draw`."""
        with self._lock:
            self._newest = ticket = object()
            job, self._job = self._job, None
        if job is not None:
            self._drawer.stop(job)
        return ticket

    def draw(self, ticket: object, draw_request: DrawRequest) -> Iterator[JobStatus]:
        """Draw a request; yield its states while it is the newest, and none that is out of date."""
        with self._lock:
            if ticket is not self._newest or self._closed:
                return
            job = self._job = self._new_job(draw_request)
            self._drawer.add(job)
        for status in job.follow():
            with self._lock:
                if ticket is not self._newest:
                    return
                if status.results:
                    self.picture = LivePicture(draw_request, status.results[0])
            yield status

    def stop(self) -> None:
        """Stop what is drawn, and forget the last picture."""
        self.begin()
        with self._lock:
            self.picture = None

    def close(self) -> None:
        """Stop, and draw nothing more."""
        with self._lock:
            self._closed = True
        self.stop()
