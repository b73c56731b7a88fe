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

_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_BACKLOG = 2048  # uvicorn's default
_SHUTDOWN_SECONDS = 2  # for responses that are being sent when the server ends


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets that listen at each address of ``host`` on this machine, until the block ends.

    Raises:
        RequestError: nothing can listen there.
    """
    with ExitStack() as stack:
        yield _listen(host, port, stack)


def _listen(host: str, port: int, stack: ExitStack) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        addresses = list(dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        for family, kind, protocol, _, address in addresses:
            try:
                listener = stack.enter_context(socket.socket(family, kind, protocol))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:  # alone it takes IPv4, too; beside an IPv4 socket it must not
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, len(addresses) > 1)
                listener.bind(address)
                listener.listen(_BACKLOG)
                sockets.append(listener)
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:  # localhost's IPv6 address may be missing on this machine
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"--host {host} --port {port}: {reason}; name another, such as --port {port + 1}") from error
    return sockets


class _Uvicorn(uvicorn.Server):
    """A server that ends open event streams instead of waiting until the pages are closed."""

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self._guard = guard

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._guard.end()
        await super().shutdown(sockets)


class Server:
    """A server in a thread of its own, which runs from its creation until it is closed."""

    def __init__(self, application: Guard, sockets: list[socket.socket]) -> None:
        """Start to serve the application at ``sockets``."""
        config = uvicorn.Config(
            application,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        self._server = _Uvicorn(config, application)
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="server", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        if not self._server.started:
            raise RuntimeError("the server didn't start; the lines above say why")

    def close(self) -> None:
        """End the responses that are being sent, and the server."""
        self._server.should_exit = True
        self._thread.join()
