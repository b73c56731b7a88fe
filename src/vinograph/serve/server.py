"""Runs the application under uvicorn, from the start of its processes to a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vinograph.serve import logs
from vinograph.serve.application import application
from vinograph.serve.configuration import Configuration
from vinograph.serve.metrics import Metrics
from vinograph.serve.service import DrawingService
from vinograph.serve.worker_process import WorkerProcess
from vinograph.web.server import listening

LOG = logging.getLogger("vinograph.serve")

WAITING_SECONDS = 30  # for a whole request head, from the connection's beginning or the last response
_LARGEST_HEAD = 64_000  # bytes; the guard refuses less than that with a reason
_CONNECTIONS = 1000  # at once
_RESPONSE_SECONDS = 5  # for responses that are being sent when the server ends
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, which closes connections that don't bring a whole request head in time.

    The same holds for a client that goes on sending a body that was refused.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """A response was sent."""
        self._stop_watching()
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        super().connection_lost(exc)
        self._stop_watching()

    def _watch(self) -> None:
        """Have the connection closed unless a request comes in time, or is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._timer is None:
            self._timer = self.loop.call_later(WAITING_SECONDS, self._close)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._timer = None
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's server, whose end is decided by :class:`Ending`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to others."""
        yield


class Ending:
    """Ends the server by signals.

    At the first one, no new work is taken, and the drawing under way may go on for ``grace``
    seconds. The second stops it after its step, the third ends the server at once.
    """

    def __init__(self, service: DrawingService, server: Server, grace: float) -> None:
        self._service = service
        self._server = server
        self._grace = grace
        self._count = 0
        self._tasks: list[asyncio.Task[None]] = []

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
        self._count += 1
        if self._count > 2:
            self._server.force_exit = True
        LOG.info("the server ends" if self._count == 1 else "the server ends now")
        self._tasks.append(asyncio.create_task(self._end(self._grace if self._count == 1 else 0.0)))

    async def _end(self, grace: float) -> None:
        try:
            await self._service.close(grace)
        finally:
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
    server = Server(settings(application(service, configuration, metrics)))
    with Ending(service, server, configuration.grace).by_signals():
        await service.start()
        say(f"the server listens at {address(configuration.host, sockets)}; Ctrl-C ends it")
        try:
            await server.serve(sockets)
        finally:
            await service.close(0)


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
