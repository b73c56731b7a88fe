"""The guard before all routes: host names, origins, API keys, and the size and pace of bodies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vinograph.serve.api_keys import Keys
from vinograph.serve.bodies import too_large
from vinograph.serve.configuration import Configuration, Limits
from vinograph.serve.failures import HTTPFailure
from vinograph.serve.listening import addresses_of
from vinograph.web.hosts import Hosts

PROBES = ("/livez", "/readyz")
MOST_HEADERS = 100
LONGEST_HEADERS = 32_000  # bytes of all names and values
BODY_SECONDS = 20.0  # for a body, and more for each of its bytes
SLOWEST_BODY = 10_000  # bytes a second
_BODIES_AT_ONCE = 8  # times the largest body, for all requests together
_READING = ("GET", "HEAD", "OPTIONS")
_SHOWN_HEADERS = "x-request-id, retry-after, x-vinograph-ignored, x-vinograph-size"
_PREFLIGHT_SECONDS = 600
# Nothing here sends parts of a file, and a header that asks for thousands of them costs time.
_DROPPED = (b"range", b"if-range")


@dataclass
class _Received:
    """Bytes of the bodies of all requests that haven't been answered."""

    most: int
    count: int = field(default=0)


class Guard:
    """An ASGI application that passes on what may come in, and raises HTTPFailure for the rest."""

    def __init__(self, app: ASGIApp, configuration: Configuration, open_paths: Iterable[str] = ()) -> None:
        """Guard ``app``. Addresses that begin with one of ``open_paths`` can be read without a key."""
        self._app = app
        self._hosts = Hosts(configuration.host, addresses_of(configuration.host), configuration.allowed_hosts)
        self._keys = Keys(configuration.keys)
        self._origins = Origins(configuration.allowed_origins)
        self._limits = configuration.limits
        self._open = tuple(open_paths)
        self._received = _Received(_BODIES_AT_ONCE * configuration.limits.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _checked_headers(scope)
        method, path = scope["method"], scope["path"]
        if path not in PROBES:
            self._check_host(headers)
            if method == "OPTIONS" and b"access-control-request-method" in headers:
                await self._origins.preflight(headers)(scope, receive, send)
                return
            self._check_origin(method, headers)
            self._check_key(method, path, headers)
        _check_length(headers, self._limits)
        body = _Body(receive, self._limits, self._received)
        try:
            await self._app(scope, body, send)
        finally:
            body.release()

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        if not self._hosts.allow(headers.get(b"host", b"").decode("latin-1")):
            message = "the server isn't reached by this name; `vinograph serve --allowed-host NAME` adds one"
            raise HTTPFailure(403, message, "host_not_allowed")

    def _check_origin(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what another site's page sends, but where its origin is allowed."""
        if method in _READING or b"origin" not in headers:
            return
        origin, host = headers[b"origin"].decode("latin-1"), headers.get(b"host", b"").decode("latin-1")
        if not self._origins.allow(origin) and not self._hosts.same(origin, host):
            message = "another site's page may not use this server; `--allowed-origin ORIGIN` allows one"
            raise HTTPFailure(403, message, "origin_not_allowed")

    def _check_key(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        if not self._keys or (method in _READING and path.startswith(self._open) and self._open):
            return
        if not self._keys.admit(headers):
            wanted = (
                'Bearer realm="vinograph"' if path.startswith("/v1/") else 'Basic realm="vinograph", charset="UTF-8"'
            )
            message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
            raise HTTPFailure(401, message, "invalid_api_key", headers={"WWW-Authenticate": wanted})


class Origins:
    """The origins of web pages that may use the server from a browser.

    Browsers never send cookies or their stored passwords along: pages have to send a key.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = {each.lower().rstrip("/") for each in allowed}

    def allow(self, origin: str) -> bool:
        """Whether a page of that origin may use the server. "null" stands for many, so it may not."""
        return origin.lower() in self._allowed or ("*" in self._allowed and origin != "null")

    def preflight(self, headers: Mapping[bytes, bytes]) -> Response:
        """The answer to a browser that asks whether a page may send a request.

        Raises:
            HTTPFailure: it may not.
        """
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not self.allow(origin):
            message = "another site's page may not use this server; `--allowed-origin ORIGIN` allows one"
            raise HTTPFailure(403, message, "origin_not_allowed")
        return Response(
            status_code=204,
            headers={
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": headers.get(b"access-control-request-headers", b"").decode("latin-1"),
                "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
            },
        )

    def response_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The headers of a response by which a browser shows it to the page that asked."""
        if not self._allowed:
            return []
        origin = next((value for name, value in headers if name == b"origin"), b"")
        found = [(b"vary", b"Origin")]
        if origin and self.allow(origin.decode("latin-1")):
            found.append((b"access-control-allow-origin", origin))
            found.append((b"access-control-expose-headers", _SHOWN_HEADERS.encode()))
        return found


def _checked_headers(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers by their names, of which the application gets those that it can use."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > LONGEST_HEADERS:
        message = f"the request has over {MOST_HEADERS} headers, or over {LONGEST_HEADERS:,} bytes of them"
        raise HTTPFailure(431, message, "headers_too_large")
    scope["headers"] = [each for each in headers if each[0] not in _DROPPED]
    return dict(scope["headers"])


def _check_length(headers: Mapping[bytes, bytes], limits: Limits) -> None:
    """Refuse a body by its declared length, before any of it is read."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limits.body):
        raise too_large(limits.body)


class _Body:
    """Receives a body that may be neither too large nor too slow, whatever it declares."""

    def __init__(self, receive: Receive, limits: Limits, received: _Received) -> None:
        self._receive = receive
        self._limits = limits
        self._all = received
        self._count = 0
        self._began = time.monotonic()
        self._complete = False

    async def __call__(self) -> Message:
        """The next part of the body, or after it the news that the client went away."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline()):
                message = await self._receive()
        except TimeoutError as error:
            reason = f"the body came too slowly: {self._count:,} bytes in {time.monotonic() - self._began:.0f} s"
            raise HTTPFailure(408, reason, "body_too_slow", headers={"Connection": "close"}) from error
        if message["type"] == "http.request":
            self._count_piece(len(message.get("body", b"")))
            self._complete = not message.get("more_body", False)
        return message

    def _deadline(self) -> float:
        since = asyncio.get_running_loop().time() - (time.monotonic() - self._began)
        return since + BODY_SECONDS + self._count / SLOWEST_BODY

    def _count_piece(self, size: int) -> None:
        self._count += size
        self._all.count += size
        if self._count > self._limits.body:
            raise too_large(self._limits.body)
        if self._all.count > self._all.most:
            message = "the server receives too much at once; try again later"
            raise HTTPFailure(503, message, "busy", headers={"Retry-After": "5"})

    def release(self) -> None:
        """The request was answered."""
        self._all.count -= self._count
        self._count = 0
