"""The server's ASGI application: both APIs, the probes, the metrics and the OpenAPI document."""

from __future__ import annotations

import html
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vinograph.serve import a1111_api, openai_images
from vinograph.serve.configuration import Configuration
from vinograph.serve.contract import Service
from vinograph.serve.failures import CLIENT_CLOSED, HTTPFailure, failure_of
from vinograph.serve.logs import REQUEST_ID, LoggedService, event
from vinograph.serve.metrics import CONTENT_TYPE, Measured, Metrics
from vinograph.serve.openapi import document
from vinograph.serve.security import PROBES, Guard, Origins
from vinograph.values import clipped


class WholeService(Service, Measured, Protocol):
    """What the application needs of its service."""


def application(
    service: WholeService,
    configuration: Configuration,
    metrics: Metrics,
    page: ASGIApp | None = None,
    *,
    identified: bool = False,
) -> ASGIApp:
    """The application; ``page`` answers what no route of ours does.

    ``identified`` says that a proxy in front gives each request its identifier, and tells the client.
    """
    logged = LoggedService(service, prompts=configuration.log_prompts)
    routes = [
        *_own_routes(service, configuration, metrics),
        *openai_images.routes(logged, configuration),
        *a1111_api.routes(logged, configuration),
    ]
    if page is None:
        routes.append(Route("/", _home(configuration), methods=["GET"]))
    guarded = Guard(Routes(routes, page), configuration, [openai_images.LINKS_PATH])
    return Observed(Answering(guarded), Origins(configuration.allowed_origins), metrics, identified=identified)


_API_PATHS = ("/v1/", "/sdapi/", "/internal/")


def failure_response(path: str, failure: HTTPFailure) -> Response:
    """A failure in the shape of the API whose path it is."""
    if path.startswith("/sdapi/"):
        return a1111_api.failure_response(failure)
    return openai_images.failure_response(failure)


def _own_routes(service: WholeService, configuration: Configuration, metrics: Metrics) -> list[BaseRoute]:
    async def live(_: Request) -> Response:
        return PlainTextResponse("alive")

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready") if service.ready else PlainTextResponse("not ready", 503)

    async def counted(_: Request) -> Response:
        return Response(await metrics.text(service), media_type=CONTENT_TYPE)

    described = document(configuration)

    async def openapi(_: Request) -> Response:
        return JSONResponse(described)

    paths = {"/livez": live, "/readyz": ready, "/metrics": counted, "/openapi.json": openapi}
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in paths.items()]


def _home(configuration: Configuration) -> Callable[[Request], Awaitable[Response]]:
    models = "".join(f"<li>{html.escape(each.name)}</li>" for each in configuration.models)
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Vinograph</title><h1>Vinograph</h1>'
        "<p>This server draws pictures from text, for programs. It has these models:</p>"
        f"<ul>{models}</ul><p>Programs use OpenAI’s images API under <code>/v1</code> and AUTOMATIC1111’s API "
        'under <code>/sdapi/v1</code>; <a href="openapi.json">openapi.json</a> describes both.</p></html>'
    )

    async def home(_: Request) -> Response:
        return HTMLResponse(text)

    return home


class Routes:
    """Finds the route of a request; raises HTTPFailure with 404, or 405 with all allowed methods."""

    def __init__(self, routes: Sequence[BaseRoute], page: ASGIApp | None) -> None:
        self._routes = routes
        self._page = page
        self._router = Router(routes, redirect_slashes=False, default=self._unknown)

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._page is None or scope["path"].startswith(_API_PATHS):
            raise HTTPException(404)
        await self._page(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["app"] = self  # without one, starlette answers unknown routes in a shape of its own
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            raise self._explained(error, scope) from error

    def _explained(self, error: HTTPException, scope: Scope) -> HTTPFailure:
        if error.status_code == 404:
            return HTTPFailure(404, "there is nothing at this path; /openapi.json lists what there is", "not_found")
        if error.status_code != 405:
            return failure_of(error)
        methods = ", ".join(self._methods(scope))
        return HTTPFailure(405, f"the path takes {methods}", "method_not_allowed", headers={"Allow": methods})

    def _methods(self, scope: Scope) -> list[str]:
        matching = [each for each in self._routes if isinstance(each, Route) and each.matches(scope)[0] != Match.NONE]
        return sorted({method for each in matching for method in each.methods or ()})


class Answering:
    """Answers with an error's response, in its API's shape, where the application raises one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            failure = failure_of(error)
            if not started:
                await failure_response(scope["path"], failure)(scope, receive, send)
            elif failure.status != CLIENT_CLOSED:  # half a response is cut off, so that nobody takes it for whole
                raise


_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_NO_STORE = (b"cache-control", b"no-store")
_NOTHING_ELSE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Observed:
    """Gives each request an identifier, counts and logs it, and adds headers to its response."""

    def __init__(self, app: ASGIApp, origins: Origins, metrics: Metrics, *, identified: bool) -> None:
        self._identified = identified
        self._app = app
        self._origins = origins
        self._metrics = metrics

    def _request_id(self, scope: Scope) -> str:
        """The identifier of a request."""
        return (self._identified and _given_id(scope)) or uuid.uuid4().hex

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, request_id = time.perf_counter(), self._request_id(scope)
        status, size = CLIENT_CLOSED, 0
        cross_origin = self._origins.response_headers(scope["headers"])

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                identifier = [] if self._identified else [(b"x-request-id", request_id.encode())]
                own = [*identifier, *cross_origin]
                message = {**message, "headers": _with_headers(message.get("headers", ()), own, "route" in scope)}
            size += len(message.get("body", b""))
            await send(message)

        token = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - began
            self._metrics.answered(scope["method"], _template(scope), status, seconds)
            if scope["path"] not in PROBES:  # which come every second
                _log(scope, status=status, bytes=size, seconds=seconds)
            REQUEST_ID.reset(token)


def _given_id(scope: Scope) -> str:
    """The identifier in a request's headers; empty if there is none."""
    return next((clipped(value.decode("latin-1")) for name, value in scope["headers"] if name == b"x-request-id"), "")


def _log(scope: Scope, **fields: Any) -> None:
    client = scope["client"][0] if scope.get("client") else ""
    path = _template(scope) or clipped(scope["path"])
    event("answered", client=client, method=clipped(scope["method"]), path=path, **fields)


def _template(scope: Scope) -> str:
    """The path of the route that answered, which names what a client's path holds; empty for none."""
    return str(getattr(scope.get("route"), "path", ""))


def _with_headers(
    given: Sequence[tuple[bytes, bytes]], more: Sequence[tuple[bytes, bytes]], own: bool
) -> list[tuple[bytes, bytes]]:
    """Headers of a response with ours; those that the application has set stay as they are."""
    names = {name.lower() for name, _ in given}
    added = [*_HEADERS, *([_NO_STORE, _NOTHING_ELSE] if own else [])]
    return [*given, *more, *(each for each in added if each[0] not in names)]
