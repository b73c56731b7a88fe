"""The drawings of A1111's API that wait or are under way, and what ``progress`` says of them.

Each client sees and interrupts its own drawings, by its address: not those of others, and not those
of other APIs.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vinograph.serve.contract import Drawn, Event, Job, Progress, Waiting

_BEGUN = 0.01  # A1111's progress of a drawing that has just begun


@dataclass
class Tracked:
    """A drawing of ``pictures`` pictures that ``client`` waits for."""

    job: Job
    client: str
    pictures: int
    submitted: float = field(default_factory=time.time)
    began: float | None = None
    progress: float = 0.0
    interrupted: bool = False

    def note(self, event: Event) -> None:
        """Follow an event of the job: its progress is the share of the time, and never falls."""
        if not isinstance(event, Progress):
            return
        now = time.monotonic()
        self.began = now if self.began is None else self.began
        self.progress = max(_BEGUN, self.progress)
        seconds = now - self.began
        if event.seconds_left is not None and seconds > 0:
            self.progress = max(self.progress, seconds / (seconds + event.seconds_left))

    def response(self, *, with_picture: bool) -> dict[str, Any]:
        """What ``progress`` answers."""
        latest = self.job.latest
        running = latest if isinstance(latest, Progress) else None
        place = latest.place if isinstance(latest, Waiting) else 0
        preview = self.job.latest_preview if with_picture else None
        return {
            "progress": self.progress if running else 0.0,
            "eta_relative": (running.seconds_left or 0.0) if running else 0.0,
            "state": {
                **_STATE,
                "interrupted": self.interrupted,
                "job": self.job.id,
                "job_count": self.pictures,
                "job_no": running.picture if running else 0,
                "job_timestamp": timestamp(self.submitted),
                "sampling_step": running.index if running else 0,
                "sampling_steps": running.total if running else 0,
                "queue_place": place,
            },
            "current_image": None if preview is None else base64.b64encode(preview).decode("ascii"),
            "textinfo": f"waiting for {place} before this one" if place else running.stage if running else None,
        }


_STATE = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "",
    "job_count": 0,
    "job_no": 0,
    "job_timestamp": "0",
    "sampling_step": 0,
    "sampling_steps": 0,
    "queue_place": 0,
}
_IDLE = {"progress": 0.0, "eta_relative": 0.0, "state": _STATE, "current_image": None, "textinfo": None}


def timestamp(seconds: float) -> str:
    """A time as A1111 writes it, such as 20261231235959."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(seconds))


class Drawings:
    """The drawings that wait or are under way, in the order in which they came."""

    def __init__(self) -> None:
        self._tracked: list[Tracked] = []

    @contextmanager
    def tracking(self, job: Job, client: str, pictures: int) -> Iterator[Tracked]:
        """Keep a job for the time of the block."""
        tracked = Tracked(job, client, pictures)
        self._tracked.append(tracked)
        try:
            yield tracked
        finally:
            self._tracked.remove(tracked)

    def of(self, client: str) -> list[Tracked]:
        """A client's drawings, the one under way first."""
        own = [each for each in self._tracked if each.client == client and not isinstance(each.job.latest, Drawn)]
        return sorted(own, key=lambda each: _waits(each.job))

    def progress(self, client: str, *, with_picture: bool) -> dict[str, Any]:
        """What ``progress`` answers a client."""
        own = self.of(client)
        return own[0].response(with_picture=with_picture) if own else {**_IDLE}

    def interrupt(self, client: str) -> None:
        """End the client's drawing under way; if there is none, those that wait."""
        own = self.of(client)
        running = [each for each in own if not _waits(each.job)]
        for each in running[:1] or own:
            each.interrupted = True
            each.job.interrupt()


def _waits(job: Job) -> bool:
    """Whether other jobs come before this one; one whose turn it is has place 0 until its first step."""
    return isinstance(job.latest, Waiting) and job.latest.place > 0
