"""The page's HTTP server, in a thread of its own."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn

from vinograph.errors import RequestError
from vinograph.web.guard import Guard

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_BACKLOG = 2048  # as uvicorn's own
_PATIENCE = 2  # seconds for what is being sent when the server ends


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets at each address that ``host`` stands for on this machine, until the block ends.

    Raises:
        RequestError: there is none that can be had.
    """
    with ExitStack() as opened:
        yield _listen(host, port, opened)


def _listen(host: str, port: int, opened: ExitStack) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        addresses = list(dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        for family, kind, protocol, _, address in addresses:
            try:
                there = opened.enter_context(socket.socket(family, kind, protocol))
                there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    there.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, len(addresses) > 1)
                there.bind(address)
                there.listen(_BACKLOG)
                sockets.append(there)
            except OSError as error:
                if error.errno not in _NOT_HERE:  # such as localhost's IPv6 address on a machine that has none
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"--host {host} --port {port}: {reason}; name another, such as --port {port + 1}") from error
    return sockets


class _Uvicorn(uvicorn.Server):
    """A server that doesn't wait for the pages to close."""

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self._guard = guard

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._guard.end()
        await super().shutdown(sockets)


class Server:
    """Serves an application from when it is made until it is closed."""

    def __init__(self, application: Guard, sockets: list[socket.socket]) -> None:
        """Serve at ``sockets``."""
        config = uvicorn.Config(
            application,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
        self._server = _Uvicorn(config, application)
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="server", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        if not self._server.started:
            raise RuntimeError("the server didn't start; the lines above say why")

    def close(self) -> None:
        """End what is being sent, and serve no more."""
        self._server.should_exit = True
        self._thread.join()
