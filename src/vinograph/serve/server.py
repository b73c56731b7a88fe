"""Runs the application under uvicorn, from the start of its processes to a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from vinograph import folders
from vinograph.serve import logs
from vinograph.serve.application import application
from vinograph.serve.configuration import Configuration
from vinograph.serve.metrics import Metrics
from vinograph.serve.protocol import WAITING_SECONDS, BoundedProtocol
from vinograph.serve.service import DrawingService
from vinograph.serve.worker_process import WorkerProcess
from vinograph.web.guard import Guard
from vinograph.web.hosts import Hosts
from vinograph.web.server import listening

LOG = logging.getLogger("vinograph.serve")

_LARGEST_HEAD = 64_000  # bytes; the guard refuses less than that with a reason
_CONNECTIONS = 800  # at once: systems allow a process 1024 open files
_RESPONSE_SECONDS = 5  # for responses that are being sent when the server ends
_REPEATED_SECONDS = 0.5  # in which a second signal is the first one again, as `timeout` and terminals send it
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn's server, whose end is decided by :class:`Ending`."""

    def __init__(self, config: uvicorn.Config, page: Guard | None = None) -> None:
        """Serve the application of ``config``, of which the ``page`` may be a part."""
        super().__init__(config)
        self._page = page

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams of open pages, which would go on until they are closed."""
        if self._page is not None:
            self._page.end()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to others."""
        yield


class Ending:
    """Ends the server by signals.

    At the first one, no new work is taken, and the drawing under way may go on for ``grace``
    seconds. The second stops it after its step, the third ends the server at once.
    """

    def __init__(self, service: DrawingService, grace: float) -> None:
        self._service = service
        self._grace = grace
        self._count = 0
        self._at = -math.inf
        self._server: Server | None = None
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    def end_with(self, server: Server) -> None:
        """End this server, too; at once where a signal has come already."""
        self._server = server
        server.should_exit = self._over

    @contextlib.contextmanager
    def by_signals(self) -> Iterator[None]:
        """Handle the signals within the block."""
        loop = asyncio.get_running_loop()

        def handle(_number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.signalled)

        before: dict[int, Any] = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def signalled(self) -> None:
        """A signal came."""
        now = time.monotonic()
        if now - self._at < _REPEATED_SECONDS:
            return
        self._at = now
        self._count += 1
        if self._count > 2 and self._server is not None:
            self._server.force_exit = True
        LOG.info("the server ends" if self._count == 1 else "the server ends now")
        self._tasks.append(asyncio.create_task(self._end(self._grace if self._count == 1 else 0.0)))

    async def _end(self, grace: float) -> None:
        try:
            await self._service.close(grace)
        finally:
            self._over = True
            if self._server is not None:
                self._server.should_exit = True


def serve(configuration: Configuration, processes: Mapping[str, WorkerProcess], say: Callable[[str], None]) -> None:
    """Serve until a signal ends it; ``processes`` are those that draw.

    Raises:
        RequestError: nothing can listen at the host and port.
    """
    logs.configure(configuration.log_format)
    with listening(configuration.host, configuration.port) as sockets:
        asyncio.run(_serve(configuration, processes, sockets, say))


async def _serve(
    configuration: Configuration,
    processes: Mapping[str, WorkerProcess],
    sockets: list[socket.socket],
    say: Callable[[str], None],
) -> None:
    metrics = Metrics()
    service = DrawingService(configuration, metrics, processes)
    ending = Ending(service, configuration.grace)
    with ending.by_signals():
        try:
            await service.start()
            async with _page(service, configuration, sockets) as page:
                server = Server(settings(application(service, configuration, metrics, page)), page)
                ending.end_with(server)
                say(f"the server listens at {address(configuration.host, sockets)}; Ctrl-C ends it")
                async with asyncio.TaskGroup() as tasks:
                    warned = tasks.create_task(warn_of_models(service))
                    await server.serve(sockets)
                    warned.cancel()
        finally:
            await service.close(0)


async def warn_of_models(service: DrawingService) -> None:
    """Log which models can't be used, as soon as that is known."""
    for model in await service.models():
        if model.problem:
            LOG.warning("the model %s can't be used: %s", model.name, model.problem)


@contextlib.asynccontextmanager
async def _page(
    service: DrawingService, configuration: Configuration, sockets: list[socket.socket]
) -> AsyncIterator[Guard | None]:
    """The page as an application within the block, where the configuration asks for it."""
    if not configuration.page:
        yield None
        return
    from vinograph.serve.page import open_page

    bound = [each.getsockname()[0] for each in sockets]
    with folders.temporary("vinograph-") as folder:
        page = open_page(service, folder, None if configuration.gallery is None else Path(configuration.gallery))
        application = page.application(Hosts(configuration.host, bound, configuration.allowed_hosts))
        async with page.lifespan():
            yield application
            page.close()


def settings(app: Any) -> uvicorn.Config:
    """uvicorn's settings for an application."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        timeout_keep_alive=WAITING_SECONDS,
        timeout_graceful_shutdown=_RESPONSE_SECONDS,
    )


def address(host: str, sockets: list[socket.socket]) -> str:
    """The URL of the server; the port is the one that was given by the system if it was 0."""
    port = sockets[0].getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
