"""Measures into how many processes the processors are best divided, by drawing the first pictures."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.keys import canonical
from vinograph.batch.processes import Drawn, Processes
from vinograph.batch.store import Store
from vinograph.resources import cpu_count, memory_available

_TIMED = 3  # pictures of each process that are timed
_SECONDS = 2.0  # at least, of so many pictures
_GAIN = 1.03  # more processes have to be so much faster
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Division:
    """How the processors are divided: ``threads`` for each of ``workers``."""

    workers: int
    threads: int


@dataclass(frozen=True)
class Measured:
    """What a division gives: pictures per second, and the bytes of memory and of a picture's file."""

    division: Division
    pace: float
    private: int
    size: float

    @property
    def need(self) -> Need:
        """What one of its processes needs, and gives."""
        return Need(self.division.threads, self.private, self.pace / self.division.workers, self.size)


@dataclass(frozen=True)
class Need:
    """What a process needs: threads and, where it was measured, bytes of memory; and what it gives.

    That is ``pace`` pictures per second, whose files have ``size`` bytes.
    """

    threads: int
    private: int | None = None
    pace: float | None = None
    size: float | None = None


def divided(workers: int | None, threads: int | None) -> Division:
    """All processors, divided as far as that is said."""
    cores = cpu_count()
    if threads is None:
        threads = max(1, cores // (workers or 1))
    return Division(max(1, cores // threads) if workers is None else workers, threads)


def candidates() -> Iterator[Division]:
    """1, 2, 4, … processes, up to one for each processor."""
    cores, workers = cpu_count(), 1
    while workers < cores:
        yield divided(workers, None)
        workers *= 2
    yield divided(cores, None)


def fastest(drawing: Drawing, jobs: Sequence[Job], say: Callable[[str], None]) -> Measured | None:
    """The division that draws most; None where none of the jobs can be drawn.

    More processes are tried as long as they gain, and as there is memory for them.
    """
    best: Measured | None = None
    for division in candidates():
        if best is not None and best.private * division.workers > _MEMORY_SHARE * memory_available():
            break
        found = measure(drawing, jobs, division)
        if found is None:
            return None
        say(
            f"{division.workers} process{'es' if division.workers > 1 else ''} of {division.threads} "
            f"thread{'s' if division.threads > 1 else ''}: {60 * found.pace:.1f} pictures per minute"
        )
        if best is not None and found.pace < _GAIN * best.pace:
            break
        best = found
    return best


def measure(
    drawing: Drawing, jobs: Sequence[Job], division: Division, timed: int = _TIMED, seconds: float = _SECONDS
) -> Measured | None:
    """Draw the jobs, again and again, into nothing, and time it; None where none can be drawn.

    ``timed`` pictures of each process, and at least so many seconds, are timed.
    """
    warm: set[int] = set()
    times: list[float] = []
    sizes: list[int] = []
    failed = 0
    with Processes(drawing, None, division.workers, division.threads) as processes:
        for each in processes.draw(itertools.cycle(jobs)):
            if not isinstance(each, Drawn) or each.outcome.error is not None:
                failed += 1
                if failed > 2 * len(jobs):
                    return None
                continue
            sizes.append(each.outcome.size or 0)
            if len(warm) < division.workers:
                warm.add(each.pid)
                continue
            times.append(time.monotonic())
            if len(times) > timed * division.workers and times[-1] - times[0] >= seconds:
                break
        private = processes.private
    pace = (len(times) - 1) / (times[-1] - times[0])
    return Measured(division, pace, private, sum(sizes) / len(sizes))


def remembered(store: Store, drawing: Drawing) -> Need | None:
    """What an earlier run into this place measured."""
    note = store.note(_note_name(drawing))
    return None if note is None else Need(**json.loads(note))


def remember(store: Store, drawing: Drawing, need: Need) -> None:
    """Have later runs into this place use as many threads: with others, pictures differ in rounding."""
    store.leave_note(_note_name(drawing), json.dumps(vars(need)).encode())


def _note_name(drawing: Drawing) -> str:
    return f"threads-{hashlib.sha256(canonical(vars(drawing))).hexdigest()[:12]}.json"
