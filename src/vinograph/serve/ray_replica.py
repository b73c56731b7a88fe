"""The deployment that draws through Ray Serve: each replica holds the pipelines and draws one job at a time.

Ray stops a request only where it awaits something. A job is therefore drawn in a thread, which asks
after each step whether it shall go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph.serve import messages
from vinograph.serve.messages import SentError, Settings
from vinograph.serve.resident import resident_memory
from vinograph.serve.worker import NICENESS, Worker


@dataclass(frozen=True)
class ReplicaState:
    """What a replica says of itself when it is asked, and at the beginning and the end of each job.

    ``loaded`` are the models that have their weights in memory, ``memory`` the bytes that it has
    resident. ``error`` says why the default model couldn't be loaded ahead of its first use.
    """

    replica: str
    loaded: tuple[str, ...]
    memory: int
    error: SentError | None = None


class _Sink:
    """Hands the worker's messages to whoever follows the job under way."""

    def __init__(self) -> None:
        self.loaded: tuple[str, ...] = ()
        self.error: SentError | None = None
        self.follow: Callable[[Any], None] | None = None

    def send(self, message: Any) -> None:
        """Send a message."""
        match message:
            case messages.Loaded(models):
                self.loaded = models
            case messages.Preloaded(_, error):
                self.error = error
            case _ if self.follow is not None:
                self.follow(message)


class _Stops:
    """The jobs that nobody waits for any more. Previews are always made: nobody can ask for them later."""

    waiting = False
    previews_wanted = True

    def __init__(self) -> None:
        self.jobs: set[str] = set()

    def is_stopped(self, job: str) -> bool:
        """Whether the job under way shall end."""
        return job in self.jobs

    def forget_stops(self) -> None:
        """Nothing: whoever stopped a job waits for its end, and forgets it."""


class Drawer:
    """The deployment. It takes one request at a time (``max_ongoing_requests=1``)."""

    def __init__(self, settings: Settings, threads: int) -> None:
        """Load the default model, and draw with ``threads`` threads."""
        from ray import serve

        context = serve.get_replica_context()
        self._name = context.replica_tag
        _keep_to_processors(threads, context.rank.local_rank)
        self._sink, self._stops = _Sink(), _Stops()
        self._thread = ThreadPoolExecutor(1, "draw", initializer=_yield_to_servers)
        self._worker = Worker(settings, self._stops, self._sink, in_parts=True)
        if settings.preload is not None:
            self._thread.submit(self._worker.preload, settings.preload).result()

    async def state(self) -> bytes:
        """A :class:`ReplicaState`, packed."""
        return messages.pack(self._state())

    def _state(self) -> ReplicaState:
        return ReplicaState(self._name, self._sink.loaded, resident_memory(os.getpid()), self._sink.error)

    async def draw(self, packed: bytes) -> AsyncIterator[bytes]:
        """Draw a job, and yield the messages of the process that draws, packed, as they come.

        A :class:`ReplicaState` comes first, and again before the last message. The request ends when
        the thread has done its step, so that no other job begins before.
        """
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Any]()
        job: messages.Draw = messages.unpack(memoryview(packed)[messages.SIZE.size :])
        yield messages.pack(self._state())

        def follow(message: Any) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, message)

        drawing = loop.run_in_executor(self._thread, self._draw, job, follow)
        drawing.add_done_callback(lambda done: arrived.put_nowait(done.exception()))  # None after the last message
        try:
            ended = False
            while not ended:
                message = await arrived.get()
                if isinstance(message, BaseException):
                    raise message
                ended = isinstance(message, messages.Ended | messages.Failed)
                if ended:
                    await drawing
                    yield messages.pack(self._state())
                yield messages.pack(message)
        finally:
            self._stops.jobs.add(job.job)
            await asyncio.wait({drawing})
            self._stops.jobs.discard(job.job)

    def _draw(self, job: messages.Draw, follow: Callable[[Any], None]) -> None:
        self._sink.follow = follow
        self._worker.answer(job)


def _keep_to_processors(threads: int, place: int) -> None:
    """Use ``threads`` processors; replicas in other places of this machine use others, if there are any."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        begin = place * threads % len(allowed)
        chosen = {(allowed * 2)[begin + index] for index in range(min(threads, len(allowed)))}
        for thread in Path("/proc/self/task").iterdir():  # Ray has started some already
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), chosen)


def _yield_to_servers() -> None:
    """Let the server answer while a picture is drawn; threads of this thread inherit it."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
