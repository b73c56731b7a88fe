"""What every queue of the server does, whether its jobs are drawn by one process or by a Ray cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Coroutine, Sequence
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
)
from vinograph.serve.jobs import QueuedJob
from vinograph.serve.model_health import ModelHealth

_USUAL_SECONDS = 5.0  # of a job, before any has been drawn
_NEWEST_SHARE = 0.3  # of the latest job in the mean duration


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


class Queue(ABC):
    """Jobs that wait, in the order of arrival, and those that are being drawn.

    ``preloaded`` says whether the default model is loaded, where this queue draws with it.
    """

    preloaded: bool

    def __init__(self, metrics: Metrics) -> None:
        """Count in ``metrics``; :meth:`start` has to follow in the event loop."""
        self.health = ModelHealth()
        self._metrics = metrics
        self._mean_seconds = _USUAL_SECONDS
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def start(self) -> None:
        """Take jobs from now on."""

    @property
    @abstractmethod
    def loaded(self) -> Collection[str]:
        """The models that have their weights in memory."""

    @property
    @abstractmethod
    def under_way(self) -> Sequence[QueuedJob]:
        """The jobs that are being drawn."""

    @property
    def running(self) -> QueuedJob | None:
        """The job that is being drawn; of several, the one that arrived first."""
        return next(iter(self.under_way), None)

    @property
    @abstractmethod
    def waiting(self) -> Sequence[QueuedJob]:
        """The jobs that wait, the next one first."""

    @property
    @abstractmethod
    def waiting_count(self) -> int:
        """The number of jobs that wait for others."""

    @property
    @abstractmethod
    def free(self) -> bool:
        """Whether a job would be begun at once."""

    @property
    @abstractmethod
    def process_ids(self) -> Sequence[int]:
        """The processes of this machine that draw."""

    @property
    @abstractmethod
    def worker_memory(self) -> int:
        """Bytes that the processes that draw have resident."""

    @abstractmethod
    def problem(self, model: str) -> str:
        """Why no job with the model is taken now; empty where one is."""

    @abstractmethod
    def add(self, job: QueuedJob) -> None:
        """Put a job at the end of the queue."""

    @abstractmethod
    def interrupt(self, job: QueuedJob) -> None:
        """End a job early; its result is what is done."""

    @abstractmethod
    def looked(self, job: QueuedJob) -> None:
        """Somebody looks at a job's previews."""

    @abstractmethod
    def drain(self, error: DrainingError) -> None:
        """Drop all jobs that wait."""

    @abstractmethod
    async def end(self, error: DrainingError) -> None:
        """Stop the jobs under way after their steps, and end the queue."""

    @abstractmethod
    def _drop(self, job: QueuedJob, error: Exception) -> None:
        """End a job with an error; it leaves the queue, or its drawing is stopped."""

    def seconds_until_free(self) -> int:
        """Seconds after which a place may be free, estimated."""
        left = [self._seconds_left(job) for job in self.under_way]
        return max(1, math.ceil(min(left, default=self._mean_seconds)))

    def _seconds_left(self, job: QueuedJob) -> float:
        reported = job.latest.seconds_left if isinstance(job.latest, Progress) else None
        since = time.monotonic() - (job.began or time.monotonic())
        return self._mean_seconds - since if reported is None else reported

    def cancel(self, job: QueuedJob) -> None:
        """Drop a job that its client wants no more."""
        if not job.ended:
            self._metrics.cancelled()
            self._drop(job, CancelledJobError("the request was cancelled"))

    def expire(self, job: QueuedJob, deadline: float) -> None:
        """Drop a job whose time is over."""
        self._metrics.rejected("deadline")
        where = "drawn" if job in self.under_way else "waiting"
        self._drop(job, DeadlineError(f"the picture was not done within {deadline:g} seconds: it was still {where}"))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the event loop until the queue ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _progressed(self, job: QueuedJob | None, step: messages.StepDone) -> None:
        """Note a step; None where the job was dropped meanwhile."""
        self._metrics.step()
        if job is not None:
            job.update(Progress(**{each.name: getattr(step, each.name) for each in dataclasses.fields(Progress)}))

    def _drawn(self, job: QueuedJob, drawings: messages.Drawings, *, complete: bool) -> None:
        """End a job with what was drawn, and learn from it."""
        if drawings.pictures:
            self.health.worked(job.model)
        for stage, seconds in drawings.timings.items():
            self._metrics.stage(job.model, stage, seconds)
        if complete and job.began is not None:
            self._mean_seconds += _NEWEST_SHARE * (time.monotonic() - job.began - self._mean_seconds)
        job.update(drawn_by(job, drawings, interrupted=not complete))

    def _failed(self, job: QueuedJob, failed: messages.Failed) -> None:
        """End a job with the error that its drawing met; one of opening says something of the model."""
        error = failed.error.rebuilt()
        if failed.opening:
            self.health.failed(job.model, str(error))
            error = unavailable(job.model, str(error))
        job.fail(error)


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
