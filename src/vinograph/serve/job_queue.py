"""The jobs of one process that draws: those that wait, in the order of arrival, and the one under way."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from vinograph.serve import messages
from vinograph.serve.contract import (
    CancelledJobError,
    DeadlineError,
    DrainingError,
    Drawn,
    ModelUnavailableError,
    Picture,
    Progress,
    Waiting,
    WorkerLostError,
)
from vinograph.serve.jobs import LOOKED_SECONDS, QueuedJob
from vinograph.serve.model_health import ModelHealth
from vinograph.serve.resident import resident_memory
from vinograph.serve.worker_process import WorkerProcess

_STOP_SECONDS = 300.0  # in which a step ends; a process that takes longer is replaced
_USUAL_SECONDS = 5.0  # of a job, before any has been drawn
_NEWEST_SHARE = 0.3  # of the latest job in the mean duration
_PROCESS = ""  # the name of the process itself among the models' names, see ModelHealth


class Metrics(Protocol):
    """What the service counts."""

    def waited(self, seconds: float) -> None:
        """A job waited so long until it was begun."""
        ...

    def stage(self, model: str, stage: str, seconds: float) -> None:
        """A job spent so long in a stage."""
        ...

    def step(self) -> None:
        """A step was done."""
        ...

    def cancelled(self) -> None:
        """A job was cancelled by its client."""
        ...

    def rejected(self, reason: str) -> None:
        """A job was not taken, or was dropped; ``reason`` is "full", "draining" or "deadline"."""
        ...


class JobQueue:
    """The queue of one process, which it owns."""

    def __init__(self, process: WorkerProcess, metrics: Metrics) -> None:
        """Own the process; :meth:`start` has to follow in the event loop."""
        self.process = process
        self.health = ModelHealth()
        self.loaded: tuple[str, ...] = ()
        self.preloaded = process.settings.preload is None
        self.running: QueuedJob | None = None
        self._preload = process.settings.preload
        self._metrics = metrics
        self._waiting: deque[QueuedJob] = deque()
        self._occupant: QueuedJob | None = None  # like running, and a dropped job until its step ends
        self._taking = False
        self._preloading = False
        self._mean_seconds = _USUAL_SECONDS
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listen to the process."""
        self._keep(asyncio.create_task(self.process.listen(self)))

    @property
    def under_way(self) -> Sequence[QueuedJob]:
        """The jobs that are being drawn: one at most."""
        return () if self.running is None else (self.running,)

    @property
    def process_ids(self) -> Sequence[int]:
        """The number of the process that draws now."""
        return (self.process.pid,)

    @property
    def worker_memory(self) -> int:
        """Bytes that the process has resident."""
        return resident_memory(self.process.pid)

    @property
    def waiting(self) -> Sequence[QueuedJob]:
        """The jobs that wait, the next one first."""
        return tuple(self._waiting)

    @property
    def free(self) -> bool:
        """Whether a job would be the next one that is begun, with none under way."""
        return self._occupant is None and not self._waiting

    @property
    def waiting_count(self) -> int:
        """The number of jobs that wait for others."""
        return len(self._waiting) - (1 if self._occupant is None and self._waiting else 0)

    def seconds_until_free(self) -> int:
        """Seconds after which a place may be free, estimated."""
        left = self._mean_seconds
        if self.running is not None:
            latest = self.running.latest
            told = latest.seconds_left if isinstance(latest, Progress) else None
            since = time.monotonic() - (self.running.began or time.monotonic())
            left = self._mean_seconds - since if told is None else told
        return max(1, math.ceil(left))

    def add(self, job: QueuedJob) -> None:
        """Put a job at the end of the queue."""
        self._waiting.append(job)
        self._advance()

    def cancel(self, job: QueuedJob) -> None:
        """Drop a job that its client wants no more."""
        if not job.ended:
            self._metrics.cancelled()
            self._drop(job, CancelledJobError("the request was cancelled"))

    def expire(self, job: QueuedJob, deadline: float) -> None:
        """Drop a job whose time is over."""
        self._metrics.rejected("deadline")
        where = "drawn" if job is self.running else "waiting"
        self._drop(job, DeadlineError(f"the picture was not done within {deadline:g} seconds: it was still {where}"))

    def interrupt(self, job: QueuedJob) -> None:
        """End a job early; its result is what is done."""
        if job.ended or job.interrupted:
            return
        job.interrupted = True
        if job is self.running:
            self._stop(job)
        else:
            self._waiting.remove(job)
            job.update(drawn_by(job, messages.Drawings()))
            self._tell_places()

    def looked(self, job: QueuedJob) -> None:
        """Somebody looks at a job's previews."""
        if job is self.running:
            self._send(messages.ShowPreviews(LOOKED_SECONDS))

    def drain(self, error: DrainingError) -> None:
        """Drop all jobs that wait."""
        while self._waiting:
            self._metrics.rejected("draining")
            self._waiting.popleft().fail(error)

    async def end(self, error: DrainingError) -> None:
        """Stop the job under way after its step, and end the process."""
        if self.running is not None:
            self._drop(self.running, error)
        self._taking = False
        await self.process.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._stop_timer is not None:
            self._stop_timer.cancel()

    def _drop(self, job: QueuedJob, error: Exception) -> None:
        """End a job with an error; it leaves the queue, or its drawing is stopped."""
        job.fail(error)
        if job is self.running:
            self.running = None
            self._stop(job)
        elif job in self._waiting:
            self._waiting.remove(job)
        self._tell_places()

    def _stop(self, job: QueuedJob) -> None:
        self._send(messages.Stop(job.id))
        if self._stop_timer is None:
            self._stop_timer = asyncio.get_running_loop().call_later(_STOP_SECONDS, self.process.kill)

    def _advance(self) -> None:
        """Begin the next job if the process is free, and tell the others their places."""
        while self._taking and self._occupant is None and self._waiting:
            job = self._waiting.popleft()
            if self.health.blocked(job.model):
                job.fail(unavailable(job.model, self.health.reason(job.model)))
            else:
                self._begin(job)
        self._tell_places()

    def _begin(self, job: QueuedJob) -> None:
        self._occupant = self.running = job
        job.began = time.monotonic()
        self._metrics.waited(job.began - job.arrived)
        job.update(Waiting(0))
        self._keep(asyncio.create_task(self.process.send(job.take_message())))
        if job.looked_lately:
            self.looked(job)

    def _tell_places(self) -> None:
        before = 0 if self._occupant is None else 1
        for index, job in enumerate(self._waiting):
            job.update(Waiting(index + before))

    def _send(self, message: Any) -> None:
        self._keep(asyncio.create_task(self.process.send(messages.pack(message))))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def received(self, message: Any) -> None:
        """Take a message of the process."""
        match message:
            case messages.StepDone():
                self._step_done(message)
            case messages.Ended():
                self._ended(message)
            case messages.Failed():
                self._failed(message)
            case messages.Loaded(models):
                self.loaded = models
            case messages.Preloaded(model, error):
                if error is not None:
                    self.health.failed(model, str(error.rebuilt()))
                self.preloaded, self._preloading = error is None, False
            case messages.Started():
                self._taking = True
                self._preloading = self.process.settings.preload is not None
                self._advance()

    def _step_done(self, message: messages.StepDone) -> None:
        self._metrics.step()
        if self.running is not None and self.running.id == message.job:
            fields = {field.name: getattr(message, field.name) for field in dataclasses.fields(Progress)}
            self.running.update(Progress(**fields))

    def _ended(self, message: messages.Ended) -> None:
        job = self._vacated()
        if message.drawings.pictures:
            self.health.worked(job.model)
            self.health.worked(_PROCESS)
        for stage, seconds in message.drawings.timings.items():
            self._metrics.stage(job.model, stage, seconds)
        if message.complete and job.began is not None:
            seconds = time.monotonic() - job.began
            self._mean_seconds += _NEWEST_SHARE * (seconds - self._mean_seconds)
        if job.model == self._preload:
            self.preloaded = True
        job.update(drawn_by(job, message.drawings, interrupted=not message.complete))
        self._advance()

    def _failed(self, message: messages.Failed) -> None:
        job = self._vacated()
        error = message.error.rebuilt()
        if message.opening:
            self.health.failed(job.model, str(error))
            error = unavailable(job.model, str(error))
        job.fail(error)
        self._advance()

    def _vacated(self) -> QueuedJob:
        """The job that the process has done with, one way or the other."""
        job, self._occupant, self.running = self._occupant, None, None
        assert job is not None
        if self._stop_timer is not None:
            self._stop_timer.cancel()
            self._stop_timer = None
        return job

    def lost(self, reason: str, *, started: bool) -> None:
        """The process has ended; the job under way is lost, the others wait for the next process."""
        self._taking, self.loaded = False, ()
        explained = f"the process that draws with it ended ({reason})"
        if self._occupant is not None:
            job = self._vacated()
            self.health.lost(job.model, explained)
            job.fail(
                WorkerLostError(f"the process that drew the picture ended ({reason}); another has taken its place")
            )
        elif started and self._preloading and self._preload is not None:
            self.health.lost(self._preload, explained)
        else:
            self.health.lost(_PROCESS, explained)
        self._preloading = False
        blocked = self._preload is not None and self.health.blocked(self._preload)
        self.process.settings = dataclasses.replace(self.process.settings, preload=None if blocked else self._preload)
        if self.health.blocked(_PROCESS):
            while self._waiting:
                job = self._waiting.popleft()
                job.fail(unavailable(job.model, self.health.reason(_PROCESS)))
        self._tell_places()

    def problem(self, model: str) -> str:
        """Why no job with the model is taken now; empty where one is."""
        blocked = next((each for each in (_PROCESS, model) if self.health.blocked(each)), None)
        return "" if blocked is None else self.health.reason(blocked)


def unavailable(model: str, reason: str) -> ModelUnavailableError:
    """The error for a model that can't be used."""
    return ModelUnavailableError(f"the model {model} can't be used now: {reason}")


def drawn_by(job: QueuedJob, drawings: messages.Drawings, *, interrupted: bool = True) -> Drawn:
    """What a job gave; an interrupted one has fewer pictures, perhaps none."""
    waited = (time.monotonic() if job.began is None else job.began) - job.arrived
    fields = ("data", "seed", "width", "height", "infotext")
    return Drawn(
        pictures=tuple(Picture(*(getattr(each, name) for name in fields)) for each in drawings.pictures),
        model=job.model,
        request={**job.request.record(), **drawings.request, **_count(job)},
        timings=drawings.timings,
        warnings=drawings.warnings,
        devices=drawings.devices,
        waited=waited,
        interrupted=interrupted,
        report=drawings.report,
        files=drawings.files,
        settings=drawings.settings,
    )


def _count(job: QueuedJob) -> dict[str, int]:
    """The number of pictures as the client gave it; each was drawn alone."""
    count = job.request.num_images_per_prompt
    return {} if count is None else {"num_images_per_prompt": count}
