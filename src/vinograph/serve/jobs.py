"""A job as its client sees it: events, a result, and the wish that it ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from vinograph.request import Request
from vinograph.serve.contract import Drawn, Event, Progress, Waiting

LOOKED_SECONDS = 5.0
"""Previews are made for so long after somebody has looked at one."""


@dataclass(frozen=True)
class CheckedDrawing:
    """A drawing that was checked.

    ``message`` is what the process that draws is sent. ``request`` is the resolved request of all
    pictures together, without the pictures that the client sent. ``partial_images`` are as many as
    the client asked for.
    """

    job: str
    model: str
    request: Request
    adapters: Mapping[str, float]
    message: bytes
    partial_images: int = 0


class Control(Protocol):
    """The queue that a job is in."""

    def cancel(self, job: QueuedJob) -> None:
        """Drop the job."""
        ...

    def interrupt(self, job: QueuedJob) -> None:
        """End the job, and keep what is done."""
        ...

    def looked(self, job: QueuedJob) -> None:
        """Somebody looks at the job's previews."""
        ...


class QueuedJob:
    """A job in a queue; it implements :class:`vinograph.serve.contract.Job`."""

    def __init__(self, drawing: CheckedDrawing, arrived: float, control: Control) -> None:
        """``arrived`` is when the client asked for it, in seconds of the monotonic clock."""
        self.id = drawing.job
        self.model = drawing.model
        self.request = drawing.request
        self.adapters = drawing.adapters
        self.arrived = arrived
        self.began: float | None = None
        self.interrupted = False
        self.deadline: asyncio.TimerHandle | None = None
        self._message: bytes | None = drawing.message
        self._control = control
        self._latest: Event = Waiting(0)
        # The latest preview, or as many as a client shall get each of, however fast they come.
        self._previews: deque[Progress] = deque(maxlen=max(1, drawing.partial_images))
        self._looked = float("-inf")
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def latest(self) -> Event:
        """The latest event."""
        return self._latest

    @property
    def latest_preview(self) -> bytes | None:
        """The latest preview; to ask for it keeps previews coming."""
        self._looked = time.monotonic()
        self._control.looked(self)
        return self._previews[-1].preview if self._previews else None

    @property
    def looked_lately(self) -> bool:
        """Whether somebody has asked for a preview a moment ago."""
        return time.monotonic() - self._looked < LOOKED_SECONDS

    @property
    def ended(self) -> bool:
        """Whether there is a result, or an error."""
        return self._error is not None or isinstance(self._latest, Drawn)

    async def events(self) -> AsyncIterator[Event]:
        """Yield events; see :meth:`vinograph.serve.contract.Job.events`."""
        seen: Event | None = None
        shown: list[Progress] = []
        while True:
            latest, previews, changed = self._latest, [*self._previews], self._changed
            if self._error is not None:
                raise self._error.with_traceback(None)
            for each in previews:
                if each is not latest and not any(each is other for other in shown):
                    yield each
            shown = previews
            if latest is not seen:
                seen = latest
                yield latest
            if isinstance(seen, Drawn):
                return
            await changed.wait()

    async def result(self) -> Drawn:
        """Wait for the end; see :meth:`vinograph.serve.contract.Job.result`."""
        while self._error is None and not isinstance(self._latest, Drawn):
            await self._changed.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)
        assert isinstance(self._latest, Drawn)
        return self._latest

    @property
    def bytes_held(self) -> int:
        """The size of what is held for the drawing, pictures that the client sent above all."""
        return 0 if self._message is None else len(self._message)

    def cancel(self) -> None:
        """Drop the job."""
        self._control.cancel(self)

    def interrupt(self) -> None:
        """End the job after the step under way."""
        self._control.interrupt(self)

    @property
    def message(self) -> bytes:
        """What the process that draws is sent; empty once that was taken, or the job has ended."""
        return self._message or b""

    def take_message(self) -> bytes:
        """What the process that draws is sent, which the job then no longer holds."""
        message, self._message = self._message, None
        assert message is not None
        return message

    def update(self, event: Event) -> None:
        """Tell those who follow of an event."""
        if self.ended or event == self._latest:
            return
        self._latest = event
        if isinstance(event, Progress) and event.preview is not None:
            self._previews.append(event)
        self._tell()

    def fail(self, error: Exception) -> None:
        """End the job with an error."""
        if not self.ended:
            self._error = error
            self._tell()

    def _tell(self) -> None:
        if self.ended:
            self._message = None
            if self.deadline is not None:
                self.deadline.cancel()
        self._changed.set()
        self._changed = asyncio.Event()
