"""The process that draws: ``python -m vinograph.batch.worker FD THREADS PLACE``.

PLACE is the part of the processors that it keeps to, from 0, or -1 for any of them.

Its main thread draws one job after the other and writes the files. A second thread reads messages.
When the driver's end of the connection is closed, however that came about, the process ends at
once, unless a file is just being written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from vinograph.batch.drawing import Drawing, Job, WholeBatchError, draw_into
from vinograph.batch.expected import Expected, located
from vinograph.batch.index import Outcome
from vinograph.batch.messages import Begin, Finished, Ready, Unusable
from vinograph.batch.store import Store, open_store
from vinograph.errors import VinographError
from vinograph.resources import memory_private, share_processors

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline


class _Dropping:
    """A store that keeps nothing."""

    def relative(self, key: str) -> str:
        return key

    def has(self, _key: str) -> bool:
        return False

    def read(self, _key: str) -> bytes | None:
        return None

    def write(self, _key: str, _content: bytes) -> None:
        return


class _Guarded:
    """A store that isn't interrupted while it writes."""

    def __init__(self, store: Any, writing: threading.Lock) -> None:
        self._store = store
        self._writing = writing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, key: str, content: bytes) -> None:
        with self._writing:
            self._store.write(key, content)


def _read(connection: Connection, jobs: queue.SimpleQueue[Job], writing: threading.Lock) -> None:
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):  # the driver has ended, and nobody wants what is being drawn
        writing.acquire()
        os._exit(0)


def _limit_processors(threads: int, place: int) -> None:
    """Keep to some of the processors, so that as many threads are made, and processes don't share one."""
    allowed = sorted(os.sched_getaffinity(0))
    begin = place * threads % len(allowed)
    os.sched_setaffinity(0, {(allowed * 2)[begin + index] for index in range(min(threads, len(allowed)))})


def main() -> int:
    """Draw until the driver says that it is enough."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # nothing that a library prints is taken for a result
    descriptor, threads, place = map(int, sys.argv[1:])
    if place < 0:
        share_processors(threads)
    elif hasattr(os, "sched_setaffinity"):
        _limit_processors(threads, place)
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        _draw_all(connection, connection.recv(), threads)
    return 0


def _draw_all(connection: Connection, begin: Begin, threads: int) -> None:
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    writing = threading.Lock()
    threading.Thread(target=_read, args=(connection, jobs, writing), daemon=True).start()
    try:
        store, pipe = _opened(begin, threads)
        guarded: Store = _Guarded(store, writing)
        connection.send(Ready())
        while True:
            connection.send(Finished(_ended(guarded, pipe, jobs.get(), begin.expected), memory_private()))
    except WholeBatchError as error:
        cause = error.__cause__
        assert cause is not None
        connection.send(Unusable(type(cause), str(cause)))  # type: ignore[arg-type]
    except VinographError as error:
        connection.send(Unusable(*(located(error) if begin.expected else (type(error), str(error)))))


def _opened(begin: Begin, threads: int) -> tuple[Any, Pipeline]:
    """The place for pictures, and the model; on a machine of many, both are the driver's."""
    if begin.out is None:
        return _Dropping(), begin.drawing.open()
    if begin.expected is None:
        return open_store(begin.out), begin.drawing.open()
    begin.expected.enter()
    begin.expected.check_place(begin.out)
    store = open_store(begin.out)
    store.clear_abandoned()
    with _fetching_once(begin.drawing):
        pipe = begin.drawing.open()
    begin.expected.check(begin.out, store, pipe, begin.drawing, threads)
    return store, pipe


@contextlib.contextmanager
def _fetching_once(drawing: Drawing) -> Iterator[None]:
    """Have one process of this machine at a time open a model: the first may have to fetch it."""
    name = hashlib.sha256(f"{os.getuid()} {drawing.model}".encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"vinograph-{name}.lock"):
        yield


def _ended(store: Store, pipe: Pipeline, job: Job, expected: Expected | None) -> Outcome:
    """Draw a picture, unless another machine did so before it was lost."""
    if expected is not None:
        if (content := store.read(job.key)) is not None:
            return Outcome(job.key, hashlib.sha256(content).hexdigest(), len(content), found=True)
        expected.check_files(job)
    return draw_into(store, pipe, job)


if __name__ == "__main__":
    sys.exit(main())
