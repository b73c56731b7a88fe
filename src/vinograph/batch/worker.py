"""The process that draws: ``python -m vinograph.batch.worker FD THREADS``.

Its main thread draws one job after the other and writes the files. A second thread reads messages.
When the driver's end of the connection is closed, however that came about, the process ends at
once, unless a file is just being written.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from vinograph.batch.drawing import Job, WholeBatchError, draw_into
from vinograph.batch.messages import Begin, Finished, Ready, Unusable
from vinograph.batch.store import Store, open_store
from vinograph.errors import VinographError
from vinograph.resources import memory_private


class _Dropping:
    """A store that keeps nothing."""

    def relative(self, key: str) -> str:
        return key

    def has(self, _key: str) -> bool:
        return False

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
    if hasattr(os, "sched_setaffinity"):
        _limit_processors(threads, place)
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        _draw_all(connection, connection.recv())
    return 0


def _draw_all(connection: Connection, begin: Begin) -> None:
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    writing = threading.Lock()
    threading.Thread(target=_read, args=(connection, jobs, writing), daemon=True).start()
    try:
        store: Store = _Guarded(_Dropping() if begin.out is None else open_store(begin.out), writing)
        pipe = begin.drawing.open()
        connection.send(Ready())
        while True:
            connection.send(Finished(draw_into(store, pipe, jobs.get()), memory_private()))
    except WholeBatchError as error:
        cause = error.__cause__
        assert cause is not None
        connection.send(Unusable(type(cause), str(cause)))  # type: ignore[arg-type]
    except VinographError as error:
        connection.send(Unusable(type(error), str(error)))


if __name__ == "__main__":
    sys.exit(main())
