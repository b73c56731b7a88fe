"""What runs on the machines of a cluster: an actor that draws, and a task that measures."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow

from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.expected import Expected, located
from vinograph.batch.index import Outcome
from vinograph.batch.measuring import Division, Need, fastest, measure
from vinograph.batch.messages import Unusable
from vinograph.batch.processes import Drawn, Processes
from vinograph.batch.run import lost_in
from vinograph.errors import VinographError

COLUMN = "pickled"
"""The one column of all tables: a row is a list of jobs, or what became of one."""


@dataclass(frozen=True)
class Broken:
    """A defect, with its traceback."""

    text: str


Message = Outcome | Unusable | Broken
"""What an actor says: what became of a job, or why none can be drawn."""


class Actor:
    """Draws the jobs of each row in a process of its own, which holds the model.

    So a picture that brings its process down brings down neither the actor nor other pictures.
    """

    def __init__(self, drawing: Drawing, out: str, threads: int, expected: Expected, starts: Any) -> None:
        """Start the process, which opens the model; ``starts`` is the actor that counts them."""
        self._processes = Processes(drawing, out, 1, threads, expected)
        self._starts = starts

    def __call__(self, rows: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Yield what became of each job, in a row of its own."""
        for row in rows.column(COLUMN).to_pylist():
            for each in self._row(pickle.loads(row)):
                yield table([each])

    def _row(self, jobs: Sequence[Job]) -> Iterator[Message]:
        import ray

        keys = [each.key for each in jobs]
        given_up = ray.get(self._starts.begin.remote(keys))
        if given_up is not None:
            yield lost_in(given_up, "its actor or its machine was lost again and again")
            self._starts.ended.remote(given_up)
        for each in self._messages([job for job in jobs if job.key != given_up]):
            yield each
            if isinstance(each, Outcome):
                self._starts.ended.remote(each.key)
        self._starts.forget.remote(keys)

    def __del__(self) -> None:
        """End the process."""
        if hasattr(self, "_processes"):
            self._processes.__exit__()

    def _messages(self, jobs: Sequence[Job]) -> Iterator[Message]:
        try:
            for each in self._processes.draw(iter(jobs)):
                if isinstance(each, Drawn):
                    yield each.outcome
                elif each.job is not None:
                    yield lost_in(each.job.key, each.reason)
        except VinographError as error:
            yield Unusable(type(error), str(error))
        except Exception:
            yield Broken(traceback.format_exc())


def table(values: Sequence[object]) -> pyarrow.Table:
    """A table with a row for each value."""
    return pyarrow.table({COLUMN: pyarrow.array([pickle.dumps(each) for each in values], pyarrow.binary())})


def values(rows: pyarrow.Table) -> Iterator[Message]:
    """The values of such a table's rows."""
    for row in rows.column(COLUMN).to_pylist():
        yield pickle.loads(row)


@dataclass(frozen=True)
class Measuring:
    """What to measure with: jobs, and the number of threads, where it is decided."""

    drawing: Drawing
    jobs: Sequence[Job]
    threads: int | None
    folder: str

    def __call__(self, processors: int) -> tuple[Need | Unusable | None, list[str]]:
        """Measure with so many processors of this machine; returns what is to be said, too."""
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:processors])
        said: list[str] = []
        try:
            if self.threads is None:
                found = fastest(self.drawing, self.jobs, said.append)
            else:
                found = measure(self.drawing, self.jobs, Division(1, self.threads), timed=1, seconds=0)
        except VinographError as error:
            return Unusable(*located(error)), said
        return None if found is None else found.need, said
