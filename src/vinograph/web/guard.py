"""The guard before Gradio: it passes on only what the page itself sends, within limits."""

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
from vinograph.web import gallery_routes
from vinograph.web.gallery_routes import GalleryRoutes
from vinograph.web.hosts import Hosts
from vinograph.web.uploads import MEGABYTE, Uploads, safe_name

LARGEST_JSON = MEGABYTE  # a prompt, the settings, and a mask of 768 pixels a side
_FORM = 10_000  # bytes of an upload's form around its file
_IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}

_API = "/gradio_api/"
_FILE, _HEARTBEAT, _EVENTS, _UPLOAD, _UPLOAD_PROGRESS = (
    _API + name for name in ("file=", "heartbeat/", "queue/data", "upload", "upload_progress")
)
# Gradio's other routes stay closed: some fetch any address, write code, or run what no control of
# the page does.
_PAGES = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"}
_PAGES |= {_API + name for name in ("startup-events", "app_id")}
_FOLDERS = ("/static/", "/assets/")
_CALLS = {_API + name for name in ("queue/join", "run/predict", "cancel", "reset")}

_ARGUMENTS = ("data", "event_data", "event_id", "fn_index", "session_hash", "trigger_id")

_SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
_SECRET = re.compile("[0-9a-f]{32}")

Check = Callable[[Mapping[str, Any]], None]


class _RefusalError(Exception):
    """A request that is answered with an HTTP status and a reason instead of being passed on."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class _Identity(NamedTuple):
    """The visitor of a request; ``cookie`` is a new one for the browser to keep, else empty."""

    visitor: str
    cookie: str = ""


class Guard:
    """An ASGI application around Gradio's.

    It tells visitors apart by a cookie, or by the open page where a browser keeps none, and sets
    ``scope["state"]["visitor"]``. It receives uploads and sends files itself.
    """

    def __init__(
        self, app: ASGIApp, hosts: Hosts, uploads: Uploads, check: Check, gallery: GalleryRoutes | None = None
    ) -> None:
        """Guard ``app``; ``check`` raises RequestError for calls that no control makes."""
        self._app = app
        self._hosts = hosts
        self._uploads = uploads
        self._check = check
        self._gallery = gallery
        self._streams: set[asyncio.Task[None]] = set()
        self._cookie = f"vinograph-{secrets.token_hex(4)}"  # other servers on this machine share a browser's cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to Gradio."""
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
        """The response to a request, or None where Gradio has sent it."""
        headers, path, method = Headers(scope=scope), str(scope["path"]), str(scope["method"])
        self._check_origin(headers)
        identity = self._identity(headers)
        if method == "POST" and path == _UPLOAD:
            return await self._upload(scope, receive, identity)
        if method == "POST" and path in _CALLS:
            await self._call(scope, receive, send, identity)
            return None
        if self._gallery is not None and path.startswith(gallery_routes.PREFIX):
            return await self._answer_of(self._gallery, scope, receive)
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
            visitor = _visitor(identity, session)
            with self._uploads.open_page(visitor):
                await self._stream(scope, receive, send, visitor)
            return None
        if path == _EVENTS:
            await self._stream(scope, receive, send, identity.visitor)
            return None
        if path not in _PAGES and not path.startswith(_FOLDERS):
            raise _RefusalError(404, "the page has nothing there")
        await self._pass_on(
            scope, receive, self._with_cookie(send, identity) if path == "/" else send, identity.visitor
        )
        return None

    async def _answer_of(self, gallery: GalleryRoutes, scope: Scope, receive: Receive) -> Response:
        """The gallery's response: to a request of its addresses, or to a change that JSON asks for."""
        path, method, headers = str(scope["path"]), str(scope["method"]), Headers(scope=scope)
        if method in ("GET", "HEAD") and not gallery.changes(path):
            answer = await gallery.get(path, scope["query_string"].decode("latin-1"))
        elif method != "POST" or not gallery.changes(path):
            raise _RefusalError(405, "the page makes no such request")
        elif headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise _RefusalError(415, "the gallery is changed by JSON")
        else:
            try:
                value = parse_object(await _read(headers, receive, LARGEST_JSON), largest=LARGEST_JSON)
            except JsonError as error:
                raise _RefusalError(400, f"the request can't be read: {error}") from error
            answer = await gallery.post(path, value)
        if isinstance(answer, gallery_routes.Answer):
            raise _RefusalError(*answer)
        return answer

    def _check_origin(self, headers: Headers) -> None:
        """Refuse requests of another site's page, even if its name points here (DNS rebinding)."""
        host = headers.get("host", "")
        if not self._hosts.allow(host):
            raise _RefusalError(
                403, "the page isn't served under this name; `vinograph web --allowed-host NAME` adds one"
            )
        origin = headers.get("origin")
        if origin is not None and not self._hosts.same(origin, host):
            raise _RefusalError(403, "another site's page may not use this one")

    def _identity(self, headers: Headers) -> _Identity:
        for line in headers.getlist("cookie"):
            secret = cookie_parser(line).get(self._cookie, "")
            if _SECRET.fullmatch(secret):
                return _Identity(secret)
        return _Identity("", secrets.token_hex(16))

    def _with_cookie(self, send: Send, identity: _Identity) -> Send:
        """Send the response with a header that sets the cookie, where there is a new one."""
        if not identity.cookie:
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("Set-Cookie", self._set_cookie(identity))
            await send(message)

        return sending

    def _set_cookie(self, identity: _Identity) -> str:
        return f"{self._cookie}={identity.cookie}; Path=/; HttpOnly; SameSite=Strict"

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, visitor: str, body: bytes | None = None
    ) -> None:
        """Have Gradio answer; it gets ``body``, and nothing else that the client may send."""
        unread: bytes | None = body or b""

        async def receiving() -> Message:
            nonlocal unread
            if unread is not None:
                piece, unread = unread, None
                return {"type": "http.request", "body": piece, "more_body": False}
            while (message := await receive())["type"] != "http.disconnect":
                pass
            return message

        headers = [(name, value) for name, value in scope["headers"] if name not in _NOT_PASSED_ON]
        if body is not None:
            headers.append((b"content-length", str(len(body)).encode()))
        state = {**scope.get("state", {}), "visitor": visitor}
        await self._app({**scope, "headers": headers, "state": state}, receiving, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        """Have Gradio answer with a stream, as long as the page is open and the server runs."""
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
        """End the streams of all open pages; called in the server's thread."""
        for task in self._streams:
            task.cancel()

    async def _call(self, scope: Scope, receive: Receive, send: Send, identity: _Identity) -> None:
        """Pass on a call of a function of the page, once all files in it are the visitor's own."""
        body = await _read(Headers(scope=scope), receive, LARGEST_JSON)

        def checked() -> tuple[str, bytes]:
            call = parse_object(body, largest=LARGEST_JSON)
            session = call.get("session_hash")
            if session is not None and not (isinstance(session, str) and _SESSION.fullmatch(session)):
                raise RequestError("session_hash is no page's name")
            visitor = _visitor(identity, session or secrets.token_hex(16))
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
        """A value of a call, whose files, at any depth, are looked up among the visitor's own.

        Raises:
            RequestError: the visitor has no such file.
        """
        if isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise RequestError("the request holds half a character")
            return value
        if isinstance(value, list):
            return [self._safe(each, visitor) for each in value]
        if not isinstance(value, dict):
            return value
        if "path" in value:
            file = self._uploads.own_file(visitor, value["path"])
            return {"path": str(file), "orig_name": file.name, "meta": {"_type": "gradio.FileData"}}
        if value.get("__type__") is not None or "url" in value:
            raise RequestError("no such file")
        return {self._safe(key, visitor): self._safe(each, visitor) for key, each in value.items()}

    async def _upload(self, scope: Scope, receive: Receive, identity: _Identity) -> Response:
        """Write an uploaded file into the visitor's folder, and answer with its path."""
        headers = Headers(scope=scope)
        largest = self._uploads.limits.largest
        size = min(_length(headers, largest + _FORM), largest)
        visitor = identity.visitor or identity.cookie
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
        cookie = {"Set-Cookie": self._set_cookie(identity)} if identity.cookie else {}
        return JSONResponse([str(target)], headers=cookie)

    async def _show(self, path: str) -> Response:
        """A file as a response: pictures are shown, others only saved, as they could run scripts."""
        try:
            file = await asyncio.to_thread(self._uploads.any_file, path)
        except RequestError as error:
            return PlainTextResponse(str(error), status_code=404)
        image_type = _IMAGE_TYPES.get(file.suffix.lower())
        return FileResponse(
            file,
            media_type=image_type or "application/octet-stream",
            filename=None if image_type else file.name,  # for a picture the page's own link names the file
            content_disposition_type="attachment",
            headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "private"},
        )


# The guard has checked the origin, and without that header Gradio allows no other. The body is sent
# in one piece.
_NOT_PASSED_ON = {b"origin", b"content-length", b"transfer-encoding", b"content-encoding", b"expect"}


def _visitor(identity: _Identity, session: str) -> str:
    """The visitor's secret: the cookie, or without one the open page's name, as hard to guess."""
    return identity.visitor or hashlib.sha256(f"page {session}".encode()).hexdigest()


def _length(headers: Headers, largest: int) -> int:
    """The body's length as its header declares it, or the ``largest`` where it declares none.

    Raises:
        _RefusalError: the declared length is larger.
    """
    declared = headers.get("content-length", "")
    if not declared.isascii() or not declared.isdigit():
        return largest
    if len(declared) > 18 or int(declared) > largest:
        raise _too_large(largest)
    return int(declared)


def _too_large(largest: int) -> _RefusalError:
    return _RefusalError(413, f"the request has over {largest:,} bytes, which is the limit")


def _limited(receive: Receive, largest: int) -> Receive:
    """Receive a body of at most ``largest`` bytes, whatever length it declares."""
    received = 0

    async def receiving() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > largest:
                raise _too_large(largest)
        return message

    return receiving


async def _read(headers: Headers, receive: Receive, largest: int) -> bytes:
    """Read a whole body of at most ``largest`` bytes."""
    _length(headers, largest)
    limited, pieces = _limited(receive, largest), []
    while True:
        message = await limited()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)
