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
from typing import TYPE_CHECKING, Any

from vinograph import __version__, folders
from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.index import DONE, FAILED, Index, Outcome
from vinograph.batch.keys import Keys, contents, identity
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
        self._batch = batch
        self._keys = keys_of(batch, pipe, threads)
        self._store = open_store(batch.out)
        self._index = Index(_index_file(batch))
        self._store.clear_abandoned()
        self.tally = Tally()

    def close(self) -> None:
        """Keep what was recorded."""
        self._index.close()

    def jobs(self) -> Iterator[Job]:
        """What is missing, in the order of the rows."""
        for picture in listed(self._batch, self._keys):
            known = self._index.meet(picture)
            if known is not None and known.seen:
                self.tally.copies += 1
            elif picture.error is not None:
                self._index.record(Outcome(picture.key, error=picture.error))
                self.tally.failed += 1
            elif self._store.has(picture.key):
                if known is None or known.status != DONE:
                    self._found(picture.key)
                self.tally.there += 1
            elif known is not None and known.status == FAILED and known.attempts >= self._batch.attempts:
                self.tally.failed += 1
            else:
                yield Job(picture.key, picture.arguments)

    def draw(self, workers: int, threads: int, show: Show, warn: Callable[[str], None]) -> None:
        """Draw what is missing in processes of this machine.

        Raises:
            VinographError: the model, or the place for pictures, can't be used.
        """
        committed = time.monotonic()
        counting = False

        def idle() -> None:
            nonlocal committed, counting
            if not counting and self.tally.drawn:  # not before: it would delay the first picture
                counting = True
                self._count()
            if time.monotonic() - committed > _COMMIT_SECONDS:
                self._index.commit()
                committed = time.monotonic()
            show(self.tally)

        jobs = self.jobs()
        first = next(jobs, None)
        if first is None:
            return
        with Processes(self._batch.drawing, self._batch.out, workers, threads) as processes:
            for each in processes.draw(chain([first], jobs), idle):
                if isinstance(each, Lost):
                    self._lost(each, processes, warn)
                else:
                    self._ended(each.job, each.outcome, processes)
        show(self.tally)

    def publish(self) -> list[str]:
        """Write the manifest; returns the names of its files in OUT."""
        self._index.commit()
        with folders.temporary("vinograph-batch-") as folder:
            place = self._store.root / PRIVATE if isinstance(self._store, LocalStore) else folder
            files = self._index.write_manifest(place / f"manifest{self._batch.shard.ending}")
            for file in files:
                self._store.publish(file.name, file)
        return [file.name for file in files]

    def _count(self) -> None:
        """Count all pictures while some are drawn."""

        def count() -> None:
            total = self._batch.expansion.count(self._batch.prompts) // self._batch.shard.count
            self.tally.total = total if self._batch.limit is None else min(total, self._batch.limit)

        Thread(target=count, name="count", daemon=True).start()

    def _found(self, key: str) -> None:
        size = sha256 = None
        if isinstance(self._store, LocalStore):
            file = self._store.root / self._store.relative(key)
            size, sha256 = file.stat().st_size, contents(file)
        self._index.found(key, sha256, size)

    def _ended(self, job: Job, outcome: Outcome, processes: Processes) -> None:
        self._index.record(outcome)
        if outcome.error is None:
            self.tally.drew(outcome.size or 0)
        elif outcome.retry and self._index.attempts(job.key) < self._batch.attempts:
            processes.again(job)
        else:
            self.tally.failed += 1

    def _lost(self, lost: Lost, processes: Processes, warn: Callable[[str], None]) -> None:
        """A process has ended: draw its job again, unless that has been tried often enough."""
        self.tally.lost += 1
        self._store.clear_abandoned()
        if lost.job is None:
            return
        if self._store.has(lost.job.key):  # it was killed between the file and the message
            self._found(lost.job.key)
            self.tally.there += 1
            return
        error = f"the process that drew it ended: {lost.reason}"
        self._index.record(Outcome(lost.job.key, error=error))
        if self._index.attempts(lost.job.key) < self._batch.attempts:
            warn(f"a process that drew has ended ({lost.reason}); another draws its picture again")
            processes.again(lost.job)
        else:
            self.tally.failed += 1


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
    return Keys(_common(batch.drawing, pipe, threads), IMAGES)


def _common(drawing: Drawing, pipe: Pipeline, threads: int) -> dict[str, Any]:
    """What all pictures of a batch have in common, as far as it decides what they look like.

    The number of threads does: rounding depends on how sums are divided between them.
    """
    words = {word: [_identified(file) for file in files] for word, files in drawing.embeddings.items()}
    return {
        "vinograph": __version__,
        "model": identity(pipe.model),
        "adapters": {_identified(file): weight for file, weight in pipe.adapters.items()},
        "embeddings": words,
        "sources": {name: _identified(source) for name, source in drawing.sources.items()},
        "device": drawing.device,
        "precision": drawing.precision,
        "threads": threads,
    }


def _identified(source: str) -> str:
    """A file's contents; any other source's name."""
    return contents(Path(source)) if Path(source).is_file() else source


def _index_file(batch: Batch) -> Path:
    name = f"index{batch.shard.ending}.sqlite"
    if "://" not in batch.out:
        return Path(batch.out) / PRIVATE / name
    folder = folders.cache() / "batch" / hashlib.sha256(batch.out.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
