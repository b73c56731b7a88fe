"""The Ray dataset of a batch: jobs are read from a file that grows, and actors draw them.

Ray keeps what it reads as blocks in its object store. A block here is one row, and a row is a list
of jobs, so that a row is the work of one task. No block ever holds a picture.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from vinograph.batch.cluster.actor import Actor, table
from vinograph.batch.cluster.connection import memory
from vinograph.batch.cluster.starts import begin_counting
from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.expected import Expected
from vinograph.batch.measuring import Need

_HEAD = struct.Struct("<q")
_END = -1
_WAIT = 0.02  # seconds


class Spool:
    """A file to which the driver appends jobs, for one task on the same machine to read.

    Ray may run that task again from its start, so what was read stays.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stream = file.open("wb", buffering=0)

    def add(self, row: Sequence[Job]) -> None:
        """Append a row of jobs."""
        content = pickle.dumps(tuple(row))
        self._stream.write(_HEAD.pack(len(content)) + content)

    def end(self) -> None:
        """Say that there are no more."""
        self._stream.write(_HEAD.pack(_END))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def rows(file: Path) -> Iterator[tuple[Job, ...]]:
    """The rows of a spool, as soon as they are there."""
    with file.open("rb") as stream:
        while (length := _HEAD.unpack(_exactly(stream, _HEAD.size))[0]) != _END:
            yield pickle.loads(_exactly(stream, length))


def _exactly(stream: Any, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = stream.read(count - len(parts))
        if not part:
            time.sleep(_WAIT)
        parts += part
    return parts


class _Spooled(Datasource):  # type: ignore[misc]
    """Reads a spool; only the driver's machine has it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    @property
    def supports_distributed_reads(self) -> bool:
        """Ray reads on the driver's machine where this is False."""
        return False

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task: the rows come one after the other."""
        del parallelism
        return [ReadTask(partial(_tables, self._file), BlockMetadata(None, None, None, None))]


def _tables(file: Path) -> Iterable[pyarrow.Table]:
    return (table([row]) for row in rows(file))


def configure() -> None:
    """Set up Ray Data in this process: each row is a block, and what fails doesn't end the rest."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # bytes, so that a row waits for no other
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a picture may take hours


def jobs(spool: Spool) -> ray.data.Dataset:
    """The rows of a spool."""
    return ray.data.read_datasource(_Spooled(spool.file), num_cpus=0, override_num_blocks=1)


def outcomes(
    spool: Spool, drawing: Drawing, out: str, need: Need, expected: Expected, workers: int | None
) -> ray.data.Dataset:
    """The messages of actors that draw the jobs of a spool: as many as fit, or at most ``workers``."""
    limits = {} if memory(need) is None else {"memory": memory(need)}
    return jobs(spool).map_batches(
        Actor,
        fn_constructor_args=(drawing, out, need.threads, expected, begin_counting()),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=need.threads,
        **limits,
    )
