"""The jobs that the replicas of a Ray Serve deployment draw: Ray's router decides which draws which.

Ray keeps those that wait. What is kept here besides is what each job's client reads: its place and its progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray.exceptions as ray_errors
from ray import serve
from ray.serve.exceptions import BackPressureError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from vinograph.serve import messages
from vinograph.serve.contract import (
    DrainingError,
    QueueFullError,
    Waiting,
    WorkerLostError,
)
from vinograph.serve.jobs import QueuedJob
from vinograph.serve.queue_base import Metrics, Queue
from vinograph.serve.ray_replica import ReplicaState

LOG = logging.getLogger("vinograph.serve")
DRAWER = "Drawer"
"""The name of the deployment that draws."""

_TRIES = 2  # a drawing that ends its replica ends no third one
_WATCH_SECONDS = 1.0  # between looks at the number of replicas
_END_SECONDS = 10.0  # for replicas to stop what they draw when the server ends


@dataclass(eq=False)
class _Call:
    """A job as it is drawn."""

    job: QueuedJob
    message: bytes
    begun: bool = False
    parts: list[messages.Drawings] = field(default_factory=list)
    response: Any = None


class RayQueue(Queue):
    """Jobs on their way through a deployment handle."""

    def __init__(self, drawers: DeploymentHandle, application: str, metrics: Metrics, default_model: str) -> None:
        """``drawers`` is the deployment that draws, in the ``application`` of that name."""
        super().__init__(metrics)
        self.preloaded = False
        self.replicas = 0
        self._drawers = drawers
        self._application = application
        self._default_model = default_model
        self._calls: dict[QueuedJob, _Call] = {}  # in the order of arrival
        self._states: dict[str, ReplicaState] = {}  # by replica; the latest stands last

    def start(self) -> None:
        """Watch the replicas."""
        self._keep(self._preload())
        self._keep(self._watch())

    async def _preload(self) -> None:
        """Wait until a replica takes requests, and learn whether it has the default model."""
        state: ReplicaState = _unpacked(await self._drawers.state.remote())
        self._replica_said(state)
        if state.error is not None:
            self.health.failed(self._default_model, str(state.error.rebuilt()))
        self.preloaded = self.preloaded or state.error is None

    async def _watch(self) -> None:
        """Know how many replicas there are, and tell the log why there is none."""
        reported = ""
        while True:
            with contextlib.suppress(ray_errors.RayError):
                self.replicas, message = await asyncio.to_thread(self._count)
                for name in list(self._states)[: -self.replicas or None]:
                    del self._states[name]
                if message and message != reported and not self.replicas:
                    LOG.warning("no replica runs: %s", message)
                    reported = message
            await asyncio.sleep(_WATCH_SECONDS)

    def _count(self) -> tuple[int, str]:
        """The number of replicas that run, and what Ray says of the others."""
        own = serve.status().applications.get(self._application)
        drawers = None if own is None else own.deployments.get(DRAWER)
        return (0, "") if drawers is None else (drawers.replica_states.get("RUNNING", 0), drawers.message)

    def _replica_said(self, state: ReplicaState) -> None:
        self._states.pop(state.replica, None)
        self._states[state.replica] = state

    @property
    def loaded(self) -> Collection[str]:
        """The models that have their weights in the memory of a replica."""
        return {name for state in self._states.values() for name in state.loaded}

    @property
    def process_ids(self) -> Sequence[int]:
        """None: the replicas may be anywhere."""
        return ()

    @property
    def worker_memory(self) -> int:
        """Bytes that the replicas had resident when each was last heard of."""
        return sum(state.memory for state in self._states.values())

    @property
    def under_way(self) -> Sequence[QueuedJob]:
        """The jobs that are being drawn."""
        return [call.job for call in self._calls.values() if call.begun and not call.job.ended]

    @property
    def waiting(self) -> Sequence[QueuedJob]:
        """The jobs that wait, the next one first."""
        return [call.job for call in self._calls.values() if not call.begun and not call.job.ended]

    @property
    def _idle(self) -> int:
        """The number of replicas that do nothing; one that starts counts, as the first job waits for it alone."""
        return max(0, max(1, self.replicas) - sum(call.begun for call in self._calls.values()))

    @property
    def waiting_count(self) -> int:
        """The number of jobs that wait for others."""
        return max(0, len(self.waiting) - self._idle)

    @property
    def free(self) -> bool:
        """Whether a job would be begun at once."""
        return len(self.waiting) < self._idle

    def problem(self, model: str) -> str:
        """Why no job with the model is taken now; empty where one is."""
        return self.health.reason(model) if self.health.blocked(model) else ""

    def add(self, job: QueuedJob) -> None:
        """Hand a job to Ray."""
        call = self._calls[job] = _Call(job, job.message)
        self._keep(self._follow(call))
        self._tell_places()

    def interrupt(self, job: QueuedJob) -> None:
        """End a job early; its result is what is done."""
        if job.ended or job.interrupted:
            return
        job.interrupted = True
        self._finish(self._calls[job], complete=False)
        self._stop(job)

    def looked(self, job: QueuedJob) -> None:
        """Nothing: replicas always make previews."""

    def drain(self, error: DrainingError) -> None:
        """Drop all jobs that wait."""
        for job in self.waiting:
            self._metrics.rejected("draining")
            self._drop(job, error)

    async def end(self, error: DrainingError) -> None:
        """Stop the jobs under way after their steps, and watch no longer."""
        for job in self.under_way:
            self._drop(job, error)
        until = time.monotonic() + _END_SECONDS
        while self._calls and time.monotonic() < until:
            await asyncio.sleep(0.02)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop(self, job: QueuedJob, error: Exception) -> None:
        job.fail(error)
        self._stop(job)

    def _stop(self, job: QueuedJob) -> None:
        """Have Ray cancel the request, which stops the drawing after its step."""
        call = self._calls.get(job)
        if call is not None and call.response is not None:
            call.response.cancel()
        self._tell_places()

    def _tell_places(self) -> None:
        before = len(self.under_way)
        for index, job in enumerate(self.waiting):
            job.update(Waiting(index + before))

    async def _follow(self, call: _Call) -> None:
        """Draw a job; where its replica is lost, another one draws it from the start."""
        try:
            for attempt in range(_TRIES):
                if await self._tried(call, last=attempt == _TRIES - 1):
                    return
        except Exception as error:  # whoever waits for the job gets it
            call.job.fail(error)
        finally:
            del self._calls[call.job]
            self._tell_places()

    async def _tried(self, call: _Call, *, last: bool) -> bool:
        """Whether the job has come to an end, and not just its replica."""
        job = call.job
        if job.ended:
            return True
        call.begun, call.parts = False, []
        call.response = self._drawers.options(stream=True).draw.remote(call.message)
        try:
            async for packed in call.response:
                self._received(call, _unpacked(packed))
        except BackPressureError as error:
            self._metrics.rejected("full")
            raise QueueFullError("as many requests wait already as the server takes", self.seconds_until_free()) from (
                error
            )
        except (RequestCancelledError, ray_errors.TaskCancelledError, asyncio.CancelledError):
            if job.ended or (task := asyncio.current_task()) is None or task.cancelling():
                return True
            self._lost(call, "it was stopped", last=last)
        except ray_errors.RayTaskError:
            raise
        except ray_errors.RayError as error:
            self._lost(call, type(error).__name__, last=last)
        return job.ended

    def _lost(self, call: _Call, reason: str, *, last: bool) -> None:
        """The replica has ended; Ray starts another."""
        job = call.job
        if job.ended:
            return
        LOG.warning("a replica was lost while it drew the job %s (%s)", job.id, reason)
        self.health.lost(job.model, f"the replica that drew with it ended ({reason})")
        if last:
            job.fail(WorkerLostError(f"{_TRIES} replicas ended while they drew the picture ({reason})"))
        else:
            job.update(Waiting(len(self.under_way)))

    def _received(self, call: _Call, message: Any) -> None:
        job = call.job
        match message:
            case ReplicaState():
                self._replica_said(message)
                self._begun(call)
            case messages.StepDone():
                self._progressed(job, message)
            case messages.PartDone():
                call.parts.append(message.drawings)
            case messages.Ended():
                self._finish(call, complete=message.complete)
            case messages.Failed():
                self._failed(job, message)

    def _begun(self, call: _Call) -> None:
        job = call.job
        if not call.begun:
            call.begun = True
            if job.began is None:
                job.began = time.monotonic()
                self._metrics.waited(job.began - job.arrived)
            job.update(Waiting(0))
            self._tell_places()

    def _finish(self, call: _Call, *, complete: bool) -> None:
        job = call.job
        if job.ended:
            return
        if complete:
            self.preloaded = self.preloaded or job.model == self._default_model
        self._drawn(job, messages.together(call.parts), complete=complete)


def _unpacked(packed: bytes) -> Any:
    return messages.unpack(memoryview(packed)[messages.SIZE.size :])
