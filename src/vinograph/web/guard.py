"""What stands before Gradio: it lets through what the page itself asks for, of a size that the server can bear."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vinograph.errors import RequestError, ResourceError, VinographError
from vinograph.strict_json import JsonError, parse_object
from vinograph.web.hosts import Hosts
from vinograph.web.uploads import MEGABYTE, Uploads, safe_name

LARGEST_JSON = MEGABYTE  # a prompt, the settings, and a mask of 768 pixels a side
_FORM = 10_000  # bytes of an upload's form around its file
_SHOWN = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}

_API = "/gradio_api/"
_FILE, _HEARTBEAT, _EVENTS, _UPLOAD, _UPLOAD_PROGRESS = (
    _API + name for name in ("file=", "heartbeat/", "queue/data", "upload", "upload_progress")
)
# Gradio has more routes: some fetch addresses for whoever asks, write code, or run what no control of the page does.
_PAGES = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"}
_PAGES |= {_API + name for name in ("startup-events", "app_id")}
_FOLDERS = ("/static/", "/assets/")
_CALLS = {_API + name for name in ("queue/join", "run/predict", "cancel", "reset")}

_ARGUMENTS = ("data", "event_data", "event_id", "fn_index", "session_hash", "trigger_id")

_SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
_SECRET = re.compile("[0-9a-f]{32}")

Check = Callable[[Mapping[str, Any]], None]


class _RefusalError(Exception):
    """The request goes no further."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class _Visit(NamedTuple):
    """Who asks. ``cookie`` is what the browser has to keep from now on, empty where it already does."""

    visitor: str
    cookie: str = ""


class Guard:
    """An application around Gradio's.

    It tells visitors apart by a cookie, or where a browser keeps none by the page that is open, and sets
    ``scope["state"]["visitor"]``. It receives uploads and shows files itself.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, uploads: Uploads, check: Check) -> None:
        """``check`` raises RequestError for a call of a function that no control of the page makes."""
        self._app = app
        self._hosts = hosts
        self._uploads = uploads
        self._check = check
        self._streams: set[asyncio.Task[None]] = set()
        self._cookie = f"vinograph-{secrets.token_hex(4)}"  # other servers on this machine share a browser's cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let Gradio do so."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                answer = await self._answer(scope, receive, send)
            except _RefusalError as error:
                answer = JSONResponse({"detail": str(error)}, status_code=error.status)
            except ClientDisconnect:
                return
            if answer is not None:
                await answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """The answer to a request, or None where Gradio gave it."""
        headers, path, method = Headers(scope=scope), str(scope["path"]), str(scope["method"])
        self._check_origin(headers)
        visit = self._visit(headers)
        if method == "POST" and path == _UPLOAD:
            return await self._upload(scope, receive, visit)
        if method == "POST" and path in _CALLS:
            await self._call(scope, receive, send, visit)
            return None
        if method not in ("GET", "HEAD"):
            raise _RefusalError(405, "the page makes no such request")
        if path.startswith(_FILE):
            return await self._show(path.removeprefix(_FILE))
        if path == _UPLOAD_PROGRESS:
            return StreamingResponse(iter(['data: {"msg": "done"}\n\n']), media_type="text/event-stream")
        if path.startswith(_HEARTBEAT):
            session = path.removeprefix(_HEARTBEAT)
            if not _SESSION.fullmatch(session):
                raise _RefusalError(400, "this is no page's name")
            visitor = _visitor(visit, session)
            with self._uploads.open_page(visitor):
                await self._stream(scope, receive, send, visitor)
            return None
        if path == _EVENTS:
            await self._stream(scope, receive, send, visit.visitor)
            return None
        if path not in _PAGES and not path.startswith(_FOLDERS):
            raise _RefusalError(404, "the page has nothing there")
        await self._pass_on(scope, receive, self._with_cookie(send, visit) if path == "/" else send, visit.visitor)
        return None

    def _check_origin(self, headers: Headers) -> None:
        """Refuse what another site's page sends, also one whose name was bent to this address (DNS rebinding)."""
        host = headers.get("host", "")
        if not self._hosts.allow(host):
            raise _RefusalError(
                403, "the page isn't served under this name; `vinograph web --allowed-host NAME` adds one"
            )
        origin = headers.get("origin")
        if origin is not None and not self._hosts.same(origin, host):
            raise _RefusalError(403, "another site's page may not use this one")

    def _visit(self, headers: Headers) -> _Visit:
        for line in headers.getlist("cookie"):
            secret = cookie_parser(line).get(self._cookie, "")
            if _SECRET.fullmatch(secret):
                return _Visit(secret)
        return _Visit("", secrets.token_hex(16))

    def _with_cookie(self, send: Send, visit: _Visit) -> Send:
        """Send, and have the browser keep the cookie."""
        if not visit.cookie:
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("Set-Cookie", self._set_cookie(visit))
            await send(message)

        return sending

    def _set_cookie(self, visit: _Visit) -> str:
        return f"{self._cookie}={visit.cookie}; Path=/; HttpOnly; SameSite=Strict"

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, visitor: str, body: bytes | None = None
    ) -> None:
        """Let Gradio answer. It gets ``body``, and nothing of what else the client may send."""
        left: bytes | None = body or b""

        async def receiving() -> Message:
            nonlocal left
            if left is not None:
                given, left = left, None
                return {"type": "http.request", "body": given, "more_body": False}
            while (message := await receive())["type"] != "http.disconnect":
                pass
            return message

        kept = [(name, value) for name, value in scope["headers"] if name not in _NOT_PASSED_ON]
        if body is not None:
            kept.append((b"content-length", str(len(body)).encode()))
        state = {**scope.get("state", {}), "visitor": visitor}
        await self._app({**scope, "headers": kept, "state": state}, receiving, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        """Let Gradio answer for as long as the page is open, and the server."""
        last: Message = {"more_body": False}

        async def sending(message: Message) -> None:
            nonlocal last
            last = message
            await send(message)

        task = asyncio.create_task(self._pass_on(scope, receive, sending, visitor))
        self._streams.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._streams.discard(task)
            task.cancel()
        if not task.cancelled():
            task.result()
        elif last.get("more_body", True):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def end(self) -> None:
        """End what would go on for as long as the pages are open. Called in the server's own thread."""
        for task in self._streams:
            task.cancel()

    async def _call(self, scope: Scope, receive: Receive, send: Send, visit: _Visit) -> None:
        """Pass a call of one of the page's functions on, in which every file is one of the visitor's own."""
        body = await _read(Headers(scope=scope), receive, LARGEST_JSON)

        def checked() -> tuple[str, bytes]:
            call = parse_object(body, largest=LARGEST_JSON)
            session = call.get("session_hash")
            if session is not None and not (isinstance(session, str) and _SESSION.fullmatch(session)):
                raise RequestError("session_hash is no page's name")
            visitor = _visitor(visit, session or secrets.token_hex(16))
            safe = {key: self._safe(call[key], visitor) for key in _ARGUMENTS if key in call}
            if scope["path"].endswith(("/join", "/predict")):
                self._check(safe)
            return visitor, json.dumps(safe).encode()

        try:
            visitor, passed_on = await asyncio.to_thread(checked)
        except JsonError as error:
            raise _RefusalError(400, f"the request can't be read: {error}") from error
        except RequestError as error:
            raise _RefusalError(400, str(error)) from error
        await self._pass_on(scope, receive, send, visitor, passed_on)

    def _safe(self, value: Any, visitor: str) -> Any:
        """The value, with each file in it, wherever that is, looked up among the visitor's own."""
        if isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise RequestError("the request holds half a character")
            return value
        if isinstance(value, list):
            return [self._safe(each, visitor) for each in value]
        if not isinstance(value, dict):
            return value
        if "path" in value:
            file = self._uploads.own(visitor, value["path"])
            return {"path": str(file), "orig_name": file.name, "meta": {"_type": "gradio.FileData"}}
        if value.get("__type__") is not None or "url" in value:
            raise RequestError("no such file")
        return {self._safe(key, visitor): self._safe(each, visitor) for key, each in value.items()}

    async def _upload(self, scope: Scope, receive: Receive, visit: _Visit) -> Response:
        """Write one uploaded file into the visitor's own folder, and answer with its path, as Gradio does."""
        headers = Headers(scope=scope)
        largest = self._uploads.limits.largest
        size = min(_length(headers, largest + _FORM), largest)
        visitor = visit.visitor or visit.cookie
        if not headers.get("content-type", "").startswith("multipart/form-data"):
            raise _RefusalError(400, "the upload can't be read: it is no form")
        request = Request(scope, _limited(receive, largest + _FORM))
        try:
            with self._uploads.receive(visitor, size) as folder:
                async with request.form(max_files=1, max_fields=4, max_part_size=_FORM) as form:
                    file = form.get("files")
                    if not isinstance(file, UploadFile):
                        raise _RefusalError(400, "the upload has no file")
                    target = folder / safe_name(file.filename or "")
                    with target.open("xb") as written:
                        while piece := await file.read(MEGABYTE):
                            await asyncio.to_thread(written.write, piece)
        except (MultiPartException, FormParserError) as error:
            raise _RefusalError(400, "the upload can't be read") from error
        except ResourceError as error:
            raise _RefusalError(507, str(error)) from error
        except OSError as error:
            raise _RefusalError(507, f"the upload can't be written: {error.strerror}") from error
        except VinographError as error:
            raise _RefusalError(429, str(error)) from error
        cookie = {"Set-Cookie": self._set_cookie(visit)} if visit.cookie else {}
        return JSONResponse([str(target)], headers=cookie)

    async def _show(self, path: str) -> Response:
        """A picture, or a file to save where it is named as none."""
        try:
            file = await asyncio.to_thread(self._uploads.anyones, path)
        except RequestError as error:
            return PlainTextResponse(str(error), status_code=404)
        kind = _SHOWN.get(file.suffix.lower())
        return FileResponse(
            file,
            media_type=kind or "application/octet-stream",
            filename=file.name,
            content_disposition_type="inline" if kind else "attachment",
            headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "private"},
        )


# The origin was checked here; without one, Gradio allows no other. The body is what was checked, in one piece.
_NOT_PASSED_ON = {b"origin", b"content-length", b"transfer-encoding", b"content-encoding", b"expect"}


def _visitor(visit: _Visit, session: str) -> str:
    """By what a visitor is known: the cookie, or without one the open page, whose name is as hard to guess."""
    return visit.visitor or hashlib.sha256(f"page {session}".encode()).hexdigest()


def _length(headers: Headers, largest: int) -> int:
    """How long the body says that it is, or as long as it may be where it doesn't.

    Raises:
        _RefusalError: that is too long.
    """
    said = headers.get("content-length", "")
    if not said.isascii() or not said.isdigit():
        return largest
    if len(said) > 18 or int(said) > largest:
        raise _too_large(largest)
    return int(said)


def _too_large(largest: int) -> _RefusalError:
    return _RefusalError(413, f"the request has over {largest:,} bytes, which is the limit")


def _limited(receive: Receive, largest: int) -> Receive:
    """Receive a body, of which no more than ``largest`` bytes are taken, however it is sent."""
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > largest:
                raise _too_large(largest)
        return message

    return receiving


async def _read(headers: Headers, receive: Receive, largest: int) -> bytes:
    """A whole body of at most ``largest`` bytes."""
    _length(headers, largest)
    limited, pieces = _limited(receive, largest), []
    while True:
        message = await limited()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)
