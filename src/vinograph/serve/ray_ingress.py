"""The deployment that answers HTTP through Ray Serve: the server's application, in one replica.

One replica holds all that clients may ask for again: jobs, links to pictures, and counters. Its work
is small beside the drawing's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator

from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vinograph.serve import logs
from vinograph.serve.application import application
from vinograph.serve.configuration import Configuration
from vinograph.serve.metrics import Metrics
from vinograph.serve.ray_queue import RayQueue
from vinograph.serve.server import warn_of_models
from vinograph.serve.service import DrawingService

INGRESS = "Ingress"
"""The name of the deployment."""

_RESPONSE_SECONDS = 5.0  # for responses that are being sent when the server ends
_POLL_SECONDS = 0.02
_LINES_HELD = 10_000  # of the log, while nobody follows it


class _Lines(logging.Handler):
    """Holds the latest lines of the log until somebody reads them."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._lines: deque[str] = deque(maxlen=_LINES_HELD)
        self._come = asyncio.Event()
        self._ended = False

    def emit(self, record: logging.LogRecord) -> None:
        """Hold a line; any thread may."""
        self._lines.append(self.format(record))
        self._loop.call_soon_threadsafe(self._come.set)

    async def taken(self) -> AsyncIterator[str]:
        """Yield lines as they come, until the end."""
        while self._lines or not self._ended:
            await self._come.wait()
            self._come.clear()
            if lines := [self._lines.popleft() for _ in range(len(self._lines))]:
                yield "\n".join(lines)

    def end(self) -> None:
        """No more lines come."""
        self._ended = True
        self._come.set()


class Ingress:
    """The deployment; ``serve.ingress`` gives it its application's route."""

    async def __init__(self, configuration: Configuration, drawers: DeploymentHandle, name: str) -> None:  # type: ignore[misc]
        """Draw by ``drawers``, in the Ray application of that ``name``."""
        self._open = 0  # requests that are being answered
        self._lines = _Lines()
        logs.configure(configuration.log_format, self._lines)
        metrics = Metrics()
        queue = RayQueue(drawers, name, metrics, configuration.models[0].name)
        self._service = DrawingService(configuration, metrics, queue=queue)
        await self._service.start()
        self._application = application(self._service, configuration, metrics, identified=True)
        self._warning = asyncio.create_task(warn_of_models(self._service))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application, after whose start and end servers ask besides."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await self._live(receive, send)
                return
            self._open += 1
            try:
                await self._application(scope, receive, send)
            finally:
                self._open -= 1

        return answer

    async def _live(self, receive: Receive, send: Send) -> None:
        message: Message = await receive()
        while message["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
            message = await receive()
        await self._service.close(0)
        await send({"type": "lifespan.shutdown.complete"})

    async def log(self) -> AsyncIterator[str]:
        """Yield lines of the log as they come, until the server has ended."""
        async for lines in self._lines.taken():
            yield lines

    async def close(self, grace: float) -> None:
        """Take no new work; jobs under way may take ``grace`` seconds more. A second call shortens that."""
        await self._service.close(grace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RESPONSE_SECONDS):
                while self._open:
                    await asyncio.sleep(_POLL_SECONDS)
        self._lines.end()
