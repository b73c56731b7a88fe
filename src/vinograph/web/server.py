"""The page's HTTP server, in a thread of its own."""

from __future__ import annotations

import errno
import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp

from vinograph.errors import RequestError

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_PATIENCE = 2  # seconds for what is being sent when the server ends


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets at each address that ``host`` stands for on this machine.

    Raises:
        RequestError: there is none that can be had.
    """
    sockets: list[socket.socket] = []
    try:
        addresses = list(dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        missing: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            try:
                there = socket.socket(family, kind, protocol)
                sockets.append(there)
                there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    there.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, len(addresses) > 1)
                there.bind(address)
                there.listen(2048)
            except OSError as error:
                if error.errno not in _NOT_HERE:  # such as localhost's IPv6 address on a machine that has none
                    raise
                missing = error
                sockets.pop().close()
        if missing is not None and not sockets:
            raise missing
    except (OSError, OverflowError, UnicodeError) as error:
        for each in sockets:
            each.close()
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"--host {host} --port {port}: {reason}; name another, such as --port {port + 1}") from error
    return sockets


class Server:
    """Serves an application from when it is made until it is closed."""

    def __init__(self, application: ASGIApp, sockets: list[socket.socket]) -> None:
        """Serve at ``sockets``."""
        config = uvicorn.Config(
            application,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
        self._server = uvicorn.Server(config)
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
