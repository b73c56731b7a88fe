"""The driver of a batch on a Ray cluster: it hands out what is missing, and records what comes back.

Ray keeps at it when machines are lost. What it gives up comes back in another pass, as often as a
picture may be tried.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from vinograph import folders
from vinograph.batch.cluster.actor import Broken, Message, values
from vinograph.batch.cluster.connection import machines, memory, slots
from vinograph.batch.drawing import Job
from vinograph.batch.expected import Expected, everywhere
from vinograph.batch.index import Outcome
from vinograph.batch.measuring import Need
from vinograph.batch.messages import Unusable
from vinograph.batch.run import Run, Show, lost_in
from vinograph.errors import RequestError
from vinograph.pipeline import Pipeline

_TASK_SECONDS = 2.0  # of drawing: Ray needs some milliseconds for each task
_LARGEST_TASK = 64  # pictures
_TASKS_PER_SECOND = 25  # that Ray's driver hands out with ease
_AHEAD = 1000  # pictures at least that are handed out, and not drawn
_AHEAD_TASKS = 4  # for each actor
_LOOK_SECONDS = 5.0
_TICK = 0.1


@dataclass
class Handing:
    """Jobs to hand out, those that were handed out, and those to hand out again."""

    jobs: Iterator[Job]
    size: int
    flying: dict[str, Job] = field(default_factory=dict)
    again: deque[Job] = field(default_factory=deque)

    def rows(self, ahead: int) -> Iterator[list[Job]]:
        """Rows until so many pictures are on their way; an empty one at the end of all."""
        while len(self.flying) < ahead:
            row = list(islice(self._next(), self.size))
            self.flying.update((each.key, each) for each in row)
            yield row
            if not row:
                return

    def _next(self) -> Iterator[Job]:
        while self.again:
            yield self.again.popleft()
        yield from self.jobs


def draw(run: Run, pipe: Pipeline, need: Need, workers: int | None, show: Show, warn: Callable[[str], None]) -> None:
    """Draw what is missing on the machines of the cluster that this process is connected to.

    Raises:
        VinographError: a machine doesn't see the model, or the place for pictures, or can't use it.
    """
    from vinograph.batch.cluster import dataset

    jobs = run.jobs()
    first = next(jobs, None)
    if first is None:
        return
    dataset.configure()
    expected = _mark(run, pipe, need)
    handing = Handing(chain([first], jobs), task_size(need, slots(need)))
    while True:
        with folders.temporary("vinograph-batch-") as folder, closing(dataset.Spool(folder / "jobs")) as spool:
            results = dataset.outcomes(spool, run.batch.drawing, run.batch.out, need, expected, workers)
            _Pass(run, handing, spool, need, warn).work(_received(results), show)
        for job in list(handing.flying.values()):
            _take(run, handing, lost_in(job.key, "Ray gave its task up"), warn)
        if not handing.again:
            break
    show(run.tally)


def task_size(need: Need, actors: int) -> int:
    """Pictures of a task: so many that Ray's own time doesn't count, with all actors together."""
    if need.pace is None:
        return 1
    return max(1, min(_LARGEST_TASK, int(max(_TASK_SECONDS * need.pace, actors * need.pace / _TASKS_PER_SECOND))))


def _mark(run: Run, pipe: Pipeline, need: Need) -> Expected:
    """Leave a note in the place for pictures that shows other machines whether they see the same."""
    name, token = f"cluster{run.batch.shard.ending}.txt", secrets.token_hex(16)
    run.store.leave_note(name, token.encode())
    return Expected(name, token, str(Path.cwd()), everywhere(run.batch.drawing, pipe, need.threads))


class _Pass:
    """One execution of the dataset."""

    def __init__(self, run: Run, handing: Handing, spool: Any, need: Need, warn: Callable[[str], None]) -> None:
        self._run, self._handing, self._spool, self._need, self._warn = run, handing, spool, need, warn
        self._looked = float("-inf")
        self._ahead = _AHEAD
        self._machines = machines()

    def work(self, messages: queue.SimpleQueue[Message | BaseException | None], show: Show) -> None:
        """Hand out rows and take messages, until both have ended."""
        more = True
        while True:
            self._look()
            if more:
                more = self._hand_out()
            for message in _ready(messages):
                if message is None:
                    return
                _take(self._run, self._handing, _checked(message), self._warn)
            self._run.idle(show)

    def _hand_out(self) -> bool:
        for row in self._handing.rows(self._ahead):
            if not row:
                self._spool.end()
                return False
            self._spool.add(row)
        return True

    def _look(self) -> None:
        """See how many machines there are now and then; rows are handed out for all of them."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._compare(machines())
        needed = memory(self._need)
        count = slots(self._need)
        self._ahead = max(_AHEAD, _AHEAD_TASKS * self._handing.size * count)
        if not count:
            with_memory = "" if needed is None else f" and {needed / 1e9:.1f} GB of memory"
            self._warn(f"no machine of the cluster has {self._need.threads} processors{with_memory}; waiting for one")
            self._looked += 60

    def _compare(self, there: set[str]) -> None:
        """Say which machines have come and gone: as long as one is left, the batch goes on."""
        for gone in self._machines - there:
            self._warn(f"the cluster has lost the machine {gone[:8]}, and has {len(there)}; its pictures go to others")
        for new in there - self._machines:
            self._warn(f"the cluster has the machine {new[:8]} now, and {len(there)} in all")
        self._machines = there


def _take(run: Run, handing: Handing, outcome: Outcome, warn: Callable[[str], None]) -> None:
    """Record what became of a picture, and hand it out again where that may help."""
    job = handing.flying.pop(outcome.key, None)
    if job is None:  # a task that Ray ran again said the same before
        return
    if run.ended(outcome):
        warn(f"a picture is drawn again: {outcome.error}")
        handing.again.append(job)


def _checked(message: Message | BaseException) -> Outcome:
    """The outcome that a message is.

    Raises:
        VinographError: it says that no picture can be drawn.
    """
    match message:
        case Outcome():
            return message
        case Unusable():
            raise message.error()
        case Broken(text):
            raise RuntimeError(f"a defect on a machine of the cluster:\n{text}")
        case _:
            raise RequestError(f"the Ray cluster can't be used any more: {message}") from message


def _received(dataset: Any) -> queue.SimpleQueue[Message | BaseException | None]:
    """The messages of a dataset, which a thread executes; None is the last."""
    messages: queue.SimpleQueue[Message | BaseException | None] = queue.SimpleQueue()

    def receive() -> None:
        try:
            for rows in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                for each in values(rows):
                    messages.put(each)
            messages.put(None)
        except BaseException as error:
            messages.put(error)

    threading.Thread(target=receive, name="receive", daemon=True).start()
    return messages


def _ready(messages: queue.SimpleQueue[Any]) -> Iterator[Any]:
    """What has arrived; waits a moment for the first."""
    try:
        yield messages.get(timeout=_TICK)
        while True:
            yield messages.get_nowait()
    except queue.Empty:
        return
