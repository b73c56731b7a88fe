"""The service that draws for all APIs of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from vinograph.serve.configuration import Configuration
from vinograph.serve.contract import (
    AdapterInfo,
    DrainingError,
    Drawing,
    ModelInfo,
    QueueFullError,
)
from vinograph.serve.job_queue import JobQueue
from vinograph.serve.jobs import QueuedJob
from vinograph.serve.offered_models import OfferedModel, OfferedModels, adapter_paths
from vinograph.serve.queue_base import Metrics, Queue, unavailable
from vinograph.serve.worker_process import WorkerProcess, device_of, start_processes

Returned = TypeVar("Returned")

_CHECKING_THREADS = 4
_MOST_HELD = 1_000_000_000  # bytes of all jobs that wait: of the pictures that clients sent, unpacked
_DRAINING = "the server is about to end, and takes no new work"


class NoMetrics:
    """Counts nothing."""

    def waited(self, seconds: float) -> None:
        """A job was begun."""

    def stage(self, model: str, stage: str, seconds: float) -> None:
        """A job has passed a stage."""

    def step(self) -> None:
        """A step was done."""

    def cancelled(self) -> None:
        """A job was cancelled."""

    def rejected(self, reason: str) -> None:
        """A job was not taken."""


class DrawingService:
    """Draws in processes of its own, one for each device that the models are on.

    It implements :class:`vinograph.serve.contract.Service`.
    """

    def __init__(
        self,
        configuration: Configuration,
        metrics: Metrics | None = None,
        processes: Mapping[str, WorkerProcess] | None = None,
        *,
        queue: Queue | None = None,
    ) -> None:
        """Start the processes, unless ``processes`` are those; :meth:`start` has to follow.

        Where there is a ``queue``, all jobs go there instead, and no process is started.
        """
        self._limits = configuration.limits
        self._metrics = NoMetrics() if metrics is None else metrics
        self._offered = OfferedModels(configuration)
        self._queue = queue
        self._queues: Mapping[str, Queue] = (
            {device: JobQueue(process, self._metrics) for device, process in _processes(processes, configuration)}
            if queue is None
            else {"": queue}
        )
        self._threads = ThreadPoolExecutor(_CHECKING_THREADS, thread_name_prefix="check")
        self._opened = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._draining = False
        self._hurry = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take requests from now on."""
        for queue in self._queues.values():
            queue.start()
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        await self._in_thread(self._offered.open_all)
        self._opened.set()

    async def _in_thread(self, function: Callable[..., Returned], *arguments: Any) -> Returned:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _queue_of(self, model: OfferedModel) -> Queue:
        return self._queues[device_of(model.served)] if self._queue is None else self._queue

    async def submit(self, drawing: Drawing) -> QueuedJob:
        """Check a drawing and queue it; see :meth:`vinograph.serve.contract.Service.submit`."""
        arrived = time.monotonic()
        self._check_open()
        model = self._offered.named(drawing.model)
        queue = self._queue_of(model)
        self._check_room(queue)
        if problem := queue.problem(model.served.name):
            raise unavailable(model.served.name, problem)
        checked = await self._in_thread(self._offered.check, model, drawing)
        self._check_open()
        self._check_room(queue, len(checked.message))
        job = QueuedJob(checked, arrived, queue)
        deadline = self._limits.deadline if drawing.deadline is None else min(drawing.deadline, self._limits.deadline)
        left = max(0.0, arrived + deadline - time.monotonic())
        job.deadline = asyncio.get_running_loop().call_later(left, queue.expire, job, deadline)
        queue.add(job)
        return job

    def _check_open(self) -> None:
        if self._draining:
            self._metrics.rejected("draining")
            raise DrainingError(_DRAINING)

    def _check_room(self, queue: Queue, size: int = 0) -> None:
        """Refuse a job of ``size`` bytes where too many wait, or too many bytes for them."""
        waiting = sum(each.waiting_count for each in self._queues.values())
        held = sum(job.bytes_held for each in self._queues.values() for job in each.waiting)
        if (waiting >= self._limits.queue or held + size > _MOST_HELD) and not queue.free:
            self._metrics.rejected("full")
            seconds = queue.seconds_until_free()
            raise QueueFullError(
                f"{waiting} requests of {held / 1e6:.0f} MB wait already, as much as the server takes; try again in "
                f"{seconds} s",
                seconds,
            )

    async def find(self, name: str) -> ModelInfo:
        """The model that a name means; see :meth:`vinograph.serve.contract.Service.find`."""
        model = self._offered.named(name)
        if model.opened is None:
            await self._in_thread(model.open)
        return self._info(model)

    async def models(self) -> Sequence[ModelInfo]:
        """All models, the default one first."""
        await self._opened.wait()
        return [self._info(model) for model in self._offered.by_name.values()]

    def _info(self, model: OfferedModel) -> ModelInfo:
        queue, name = self._queue_of(model), model.served.name
        return model.info(loaded=name in queue.loaded, problem=queue.health.reason(name))

    async def adapters(self) -> Sequence[AdapterInfo]:
        """The adapters that a request can name."""
        return [AdapterInfo(name, file) for name, file in await self._in_thread(adapter_paths)]

    @property
    def running(self) -> QueuedJob | None:
        """The job that is being drawn; the one that arrived first where there are several devices."""
        running = [queue.running for queue in self._queues.values() if queue.running is not None]
        return min(running, key=lambda job: job.arrived, default=None)

    @property
    def waiting(self) -> Sequence[QueuedJob]:
        """The jobs in the queue, in the order of arrival."""
        return sorted((job for queue in self._queues.values() for job in queue.waiting), key=lambda job: job.arrived)

    @property
    def offered(self) -> OfferedModels:
        """The models, opened without their weights."""
        return self._offered

    @property
    def ready(self) -> bool:
        """Whether the default model is loaded and new work is taken."""
        default = self._offered.default
        return not self._draining and default.opened is not None and self._queue_of(default).preloaded

    @property
    def process_ids(self) -> Sequence[int]:
        """The numbers of the processes that draw."""
        return [number for queue in self._queues.values() for number in queue.process_ids]

    @property
    def under_way_count(self) -> int:
        """The number of jobs that are being drawn."""
        return sum(len(queue.under_way) for queue in self._queues.values())

    @property
    def worker_memory(self) -> int:
        """Bytes that the processes that draw have resident."""
        return sum(queue.worker_memory for queue in self._queues.values())

    async def close(self, grace: float) -> None:
        """Take no new work, and end the processes.

        Jobs that wait fail with :class:`DrainingError`. Those under way may take ``grace`` seconds
        more, then they are stopped after their step. A second call shortens the first: with 0 they
        are stopped now.
        """
        self._draining = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        asyncio.get_running_loop().call_later(grace, self._hurry.set)
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        error = DrainingError("the server ends, and the picture was not done")
        for queue in self._queues.values():
            queue.drain(error)
        await self._idle_or_hurried()
        await asyncio.gather(*(queue.end(error) for queue in self._queues.values()))
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _idle_or_hurried(self) -> None:
        hurried = asyncio.create_task(self._hurry.wait())
        jobs = [asyncio.create_task(_ended(job)) for queue in self._queues.values() for job in queue.under_way]
        while jobs and not hurried.done():
            done, _ = await asyncio.wait([hurried, *jobs], return_when=asyncio.FIRST_COMPLETED)
            jobs = [each for each in jobs if each not in done]
        for task in (hurried, *jobs):
            task.cancel()


def _processes(
    given: Mapping[str, WorkerProcess] | None, configuration: Configuration
) -> Iterable[tuple[str, WorkerProcess]]:
    return (given or start_processes(configuration)).items()


async def _ended(job: QueuedJob) -> None:
    """Wait for a job, whatever its end."""
    await asyncio.gather(job.result(), return_exceptions=True)
