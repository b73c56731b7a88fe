"""Draws a batch on this machine: what is missing, and nothing else."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from vinograph import folders
from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.expected import common
from vinograph.batch.index import DONE, FAILED, Index, Outcome
from vinograph.batch.keys import Keys, contents
from vinograph.batch.pictures import IMAGES, Expansion, Picture
from vinograph.batch.processes import Lost, Processes
from vinograph.batch.rows import PromptFile
from vinograph.batch.store import PRIVATE, LocalStore, open_store, there

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline

_REMEMBERED = 200  # pictures whose times make the pace
_COMMIT_SECONDS = 1.0


@dataclass(frozen=True)
class Shard:
    """A part of all pictures: those whose keys fall to ``number`` of ``count``."""

    number: int = 1
    count: int = 1

    def has(self, key: str) -> bool:
        """Whether a picture belongs to it."""
        return int(key[:12], 16) % self.count == self.number - 1

    @property
    def ending(self) -> str:
        """What its own files have at the end of their names."""
        return "" if self.count == 1 else f"-{self.number}-of-{self.count}"


@dataclass(frozen=True)
class Batch:
    """What to draw, how, and where to."""

    prompts: PromptFile
    out: str
    drawing: Drawing
    expansion: Expansion
    shard: Shard = Shard()
    limit: int | None = None
    attempts: int = 3


@dataclass
class Tally:
    """How far a run is. ``total`` is None until all rows are counted."""

    total: int | None = None
    drawn: int = 0
    there: int = 0
    failed: int = 0
    copies: int = 0
    size: int = 0
    lost: int = 0

    def __post_init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def met(self) -> int:
        """The pictures that were drawn, or that need no drawing."""
        return self.drawn + self.there + self.failed + self.copies

    def drew(self, size: int) -> None:
        """Count a picture."""
        self.drawn += 1
        self.size += size
        self._times.append(time.monotonic())

    @property
    def per_minute(self) -> float | None:
        """Pictures per minute, lately; None before the second."""
        if len(self._times) < 2 or self._times[-1] == self._times[0]:
            return None
        return 60 * (len(self._times) - 1) / (self._times[-1] - self._times[0])

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at this pace; None where that isn't known."""
        pace = self.per_minute
        return None if pace is None or self.total is None else 60 * max(0, self.total - self.met) / pace


Show = Callable[[Tally], None]


class Run:
    """A run of a batch; it holds the index, which it closes at the end."""

    def __init__(self, batch: Batch, pipe: Pipeline, threads: int) -> None:
        """Prepare the place for the pictures.

        Raises:
            RequestError: nothing can be written there, or another process does.
        """
        self.batch = batch
        self._keys = keys_of(batch, pipe, threads)
        self.store = open_store(batch.out)
        self._index = Index(_index_file(batch))
        self.store.clear_abandoned()
        self._committed = time.monotonic()
        self._counting = False
        self.tally = Tally()

    def close(self) -> None:
        """Keep what was recorded."""
        self._index.close()

    def jobs(self) -> Iterator[Job]:
        """What is missing, in the order of the rows."""
        for picture in listed(self.batch, self._keys):
            known = self._index.meet(picture)
            if known is not None and known.seen:
                self.tally.copies += 1
            elif picture.error is not None:
                self._index.record(Outcome(picture.key, error=picture.error))
                self.tally.failed += 1
            elif self.store.has(picture.key):
                if known is None or known.status != DONE:
                    self._found(picture.key)
                self.tally.there += 1
            elif known is not None and known.status == FAILED and known.attempts >= self.batch.attempts:
                self.tally.failed += 1
            else:
                yield Job(picture.key, picture.arguments)

    def draw(self, workers: int, threads: int, show: Show, warn: Callable[[str], None]) -> None:
        """Draw what is missing in processes of this machine.

        Raises:
            VinographError: the model, or the place for pictures, can't be used.
        """
        jobs = self.jobs()
        first = next(jobs, None)
        if first is None:
            return
        with Processes(self.batch.drawing, self.batch.out, workers, threads) as processes:
            for each in processes.draw(chain([first], jobs), lambda: self.idle(show)):
                if isinstance(each, Lost):
                    self._lost(each, processes, warn)
                elif self.ended(each.outcome):
                    processes.again(each.job)
        show(self.tally)

    def idle(self, show: Show) -> None:
        """Commit what was recorded, and show how far the run is; to be called now and then."""
        if not self._counting and self.tally.drawn:  # not before: it would delay the first picture
            self._counting = True
            self._count()
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            self._index.commit()
            self._committed = time.monotonic()
        show(self.tally)

    def ended(self, outcome: Outcome) -> bool:
        """Record what became of a picture; returns whether it is to be drawn again."""
        if outcome.found:
            self._index.found(outcome.key, outcome.sha256, outcome.size)
            self.tally.there += 1
            return False
        self._index.record(outcome)
        if outcome.error is None:
            self.tally.drew(outcome.size or 0)
            return False
        if outcome.retry and self._index.attempts(outcome.key) < self.batch.attempts:
            return True
        self.tally.failed += 1
        return False

    def publish(self) -> list[str]:
        """Write the manifest; returns the names of its files in OUT."""
        self._index.commit()
        with folders.temporary("vinograph-batch-") as folder:
            place = self.store.root / PRIVATE if isinstance(self.store, LocalStore) else folder
            files = self._index.write_manifest(place / f"manifest{self.batch.shard.ending}")
            for file in files:
                self.store.publish(file.name, file)
        return [file.name for file in files]

    def _count(self) -> None:
        """Count all pictures while some are drawn."""

        def count() -> None:
            total = self.batch.expansion.count(self.batch.prompts) // self.batch.shard.count
            self.tally.total = total if self.batch.limit is None else min(total, self.batch.limit)

        Thread(target=count, name="count", daemon=True).start()

    def _found(self, key: str) -> None:
        size = sha256 = None
        if isinstance(self.store, LocalStore):
            file = self.store.root / self.store.relative(key)
            size, sha256 = file.stat().st_size, contents(file)
        self._index.found(key, sha256, size)

    def _lost(self, lost: Lost, processes: Processes, warn: Callable[[str], None]) -> None:
        """A process has ended: draw its job again, unless that has been tried often enough."""
        self.tally.lost += 1
        self.store.clear_abandoned()
        if lost.job is None:
            return
        if self.store.has(lost.job.key):  # it was killed between the file and the message
            self._found(lost.job.key)
            self.tally.there += 1
        elif self.ended(lost_in(lost.job.key, lost.reason)):
            warn(f"a process that drew has ended ({lost.reason}); another draws its picture again")
            processes.again(lost.job)


def lost_in(key: str, reason: str) -> Outcome:
    """The outcome of a picture whose process has ended."""
    return Outcome(key, error=f"the process that drew it ended: {reason}", retry=True)


def listed(batch: Batch, keys: Keys) -> Iterator[Picture]:
    """The pictures of a batch: those of its shard, up to its limit."""
    mine = (each for each in batch.expansion.pictures(batch.prompts, keys) if batch.shard.has(each.key))
    return islice(mine, batch.limit)


def missing(batch: Batch, keys: Keys) -> int:
    """The number of pictures that are still to be drawn; nothing is written to find it."""
    store = open_store(batch.out) if there(batch.out) else None
    wanted = {
        int(each.key[:16], 16) for each in listed(batch, keys) if not each.error and not (store and store.has(each.key))
    }
    return len(wanted)


def keys_of(batch: Batch, pipe: Pipeline, threads: int) -> Keys:
    """What names the pictures of a batch."""
    return Keys(common(batch.drawing, pipe, threads), IMAGES)


def _index_file(batch: Batch) -> Path:
    name = f"index{batch.shard.ending}.sqlite"
    if "://" not in batch.out:
        return Path(batch.out) / PRIVATE / name
    folder = folders.cache() / "batch" / hashlib.sha256(batch.out.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
