"""Draws jobs in processes of this machine, between which its processors are divided."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.expected import Expected
from vinograph.batch.index import Outcome
from vinograph.batch.messages import Begin, Finished, Ready, Unusable
from vinograph.errors import ResourceError
from vinograph.resources import child_environment

_AHEAD = 2  # jobs that a process has: the one that it draws, and the next one
_END_SECONDS = 10.0
_FUTILE_STARTS = 5  # processes in a row that end before they have drawn anything, each with another job
_TICK = 0.5  # seconds


@dataclass
class _Process:
    """A process, and the jobs that it has, of which it draws the first."""

    process: subprocess.Popen[bytes]
    connection: Connection
    place: int
    ready: bool = False
    jobs: deque[Job] = field(default_factory=deque)

    def reap(self) -> str:
        """Wait for the end of the process, kill it where it doesn't end; returns how it ended."""
        self.connection.close()
        try:
            code = self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@dataclass(frozen=True)
class Drawn:
    """A job has ended."""

    job: Job
    outcome: Outcome
    pid: int


@dataclass(frozen=True)
class Lost:
    """A process has ended while it drew a job, or before it drew its first (None)."""

    job: Job | None
    pid: int
    reason: str


class Processes:
    """Processes that draw; leaving the context ends them."""

    def __init__(
        self, drawing: Drawing, out: str | None, workers: int, threads: int, expected: Expected | None = None
    ) -> None:
        """Draw in ``workers`` processes of ``threads`` threads; without ``out``, into nothing.

        With ``expected``, others draw on this machine too, and no process keeps to some processors.
        """
        self._begin = Begin(drawing, out, expected)
        self._threads = threads
        self._futile: Counter[str | None] = Counter()
        self._again: deque[Job] = deque()
        self._running = {place: self._start(place) for place in range(workers)}
        self.private = 0

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._running.values():
            each.connection.close()
            if not each.ready:  # it has begun nothing
                each.process.kill()
        for each in self._running.values():
            each.reap()

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes."""
        return [each.process.pid for each in self._running.values()]

    def again(self, job: Job) -> None:
        """Draw a job that was lost before all others."""
        self._again.append(job)

    def draw(self, jobs: Iterator[Job], idle: Callable[[], None] = lambda: None) -> Iterator[Drawn | Lost]:
        """Draw all jobs; yields what became of each, and processes that were lost and replaced.

        ``idle`` is called now and then. A lost job isn't drawn again unless :meth:`again` says so.

        Raises:
            VinographError: the model, or the place for pictures, can't be used.
            ResourceError: processes end again and again before they draw anything.
        """
        more = True
        while True:
            if more:
                more = self._fill(jobs)
            else:
                self._fill(iter(()))
            if not more and not self._again and not any(each.jobs for each in self._running.values()):
                return
            connections = {each.connection: each for each in self._running.values()}
            for connection in wait(list(connections), _TICK):
                yield from self._received(connections[connection])  # type: ignore[index]
            idle()

    def _fill(self, jobs: Iterator[Job]) -> bool:
        """Give jobs to processes that have room, evenly; returns whether there may be more."""
        for count in range(_AHEAD):
            for each in self._running.values():
                if each.ready and len(each.jobs) == count:
                    job = self._again.popleft() if self._again else next(jobs, None)
                    if job is None:
                        return False
                    each.jobs.append(job)
                    with contextlib.suppress(OSError):  # it has just ended, which is noticed by itself
                        each.connection.send(job)
        return True

    def _received(self, worker: _Process) -> Iterator[Drawn | Lost]:
        try:
            message: Any = worker.connection.recv()
        except (EOFError, OSError):
            yield self._replaced(worker)
            return
        match message:
            case Ready():
                worker.ready = True
            case Finished(outcome, private):
                self._futile.clear()
                self.private = max(self.private, private)
                yield Drawn(worker.jobs.popleft(), outcome, worker.process.pid)
            case Unusable():
                raise message.error()

    def _replaced(self, worker: _Process) -> Lost:
        reason = worker.reap()
        lost = worker.jobs.popleft() if worker.jobs else None
        self._again.extend(worker.jobs)
        self._futile[None if lost is None else lost.key] += 1
        if max(len(self._futile), self._futile[None]) > _FUTILE_STARTS * len(self._running):
            raise ResourceError(
                f"processes that draw end again and again, the last one by {reason}: there may not be enough memory; "
                "try fewer by --workers"
            )
        if not worker.ready:
            time.sleep(_TICK)
        self._running[worker.place] = self._start(worker.place)
        return Lost(lost, worker.process.pid, reason)

    def _start(self, place: int) -> _Process:
        own, other = Pipe()
        with other:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "vinograph.batch.worker"),
                    *map(str, (other.fileno(), self._threads, -1 if self._begin.expected else place)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
                env={**child_environment(), "OMP_NUM_THREADS": str(self._threads)},
                process_group=0,  # Ctrl-C at the terminal is for the driver alone
            )
        with contextlib.suppress(OSError):
            own.send(self._begin)
        return _Process(process, own, place)
