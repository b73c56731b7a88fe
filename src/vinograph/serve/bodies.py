"""Reads the bodies of requests, JSON and multipart forms, within limits of size, depth and count.

Everything stays in memory and nothing is written to disk. Names of a client's files are dropped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from vinograph import strict_json
from vinograph.serve.configuration import Limits
from vinograph.serve.failures import HTTPFailure
from vinograph.values import shown

MOST_VALUES = 100_000  # values in one JSON body; Python takes a hundred bytes for each
MOST_PARTS = 100  # of a form
LONGEST_TEXT = 1_000_000  # bytes of a form's text field
_LONGEST_NAME = 200  # bytes of a field's name
_LARGE = 100_000  # bytes from which parsing would keep other requests waiting
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Form:
    """A multipart form: its text fields and its files, each by its name, in the order they came."""

    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Read a body that is a JSON object.

    Raises:
        HTTPFailure: 413 for too large a body, 415 for another content type, 400 for anything but
            one JSON object: NaN, a key twice, half a surrogate pair, too deep, too many values.
        ClientDisconnect: the client went away.
    """
    kind, options = _content_type(request)
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise _wrong_type(request, "application/json")
    charset = options.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPFailure(415, f"the body's charset is {shown(charset)}; send UTF-8", "unsupported_media_type")
    body = await _read(request, limits)
    if len(body) > _LARGE:
        return await asyncio.to_thread(_parse, body, limits)
    return _parse(body, limits)


async def read_form(request: Request, limits: Limits) -> Form:
    """Read a body that is a multipart form.

    A part with a file name is a file, any other is a text field.

    Raises:
        HTTPFailure: 413 for too large a body, field or number of parts, 415 for another content
            type, 400 for a form that can't be read.
        ClientDisconnect: the client went away.
    """
    kind, options = _content_type(request)
    if kind != "multipart/form-data":
        raise _wrong_type(request, "multipart/form-data")
    if not options.get("boundary"):
        raise HTTPFailure(400, "the form's content type names no boundary", "invalid_form")
    parts = _Parts()
    try:
        parser = parts.parser(options["boundary"])
        size = 0
        async for piece in _pieces(request):
            size = _checked_size(size + len(piece), limits)
            parser.write(piece)
    except FormParserError as error:
        raise HTTPFailure(400, f"the form can't be read: {shown(str(error))}", "invalid_form") from error
    return parts.form()


async def _read(request: Request, limits: Limits) -> bytearray:
    body = bytearray()
    async for piece in _pieces(request):
        _checked_size(len(body) + len(piece), limits)
        body += piece
    return body


async def _pieces(request: Request) -> Any:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        message = f"the body is compressed ({shown(encoding)}); send it as it is"
        raise HTTPFailure(415, message, "unsupported_media_type", headers={"Accept-Encoding": "identity"})
    async for piece in request.stream():
        yield piece


def _checked_size(size: int, limits: Limits) -> int:
    if size > limits.body:
        raise too_large(limits.body)
    return size


def too_large(most: int) -> HTTPFailure:
    """The failure for a body of more than ``most`` bytes."""
    message = f"the body has over {most:,} bytes, which is the limit"
    return HTTPFailure(413, message, "too_large")


def _content_type(request: Request) -> tuple[str, dict[str, str]]:
    kind, options = parse_options_header(request.headers.get("content-type"))
    plain = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in options.items()}
    return kind.decode("latin-1").strip().lower(), plain


def _wrong_type(request: Request, wanted: str) -> HTTPFailure:
    given = request.headers.get("content-type")
    said = f"the content type is {shown(given)}" if given else "there is no content type"
    return HTTPFailure(415, f"{said}; send {wanted}", "unsupported_media_type", headers={"Accept": wanted})


def _parse(body: bytearray, limits: Limits) -> dict[str, Any]:
    # Counted before anything is parsed; commas in texts count, too, and there is room for them.
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise HTTPFailure(400, f"the body has over {MOST_VALUES:,} values, which is the limit", "invalid_json")
    try:
        value = strict_json.parse_object(body.decode("utf-8"), largest=limits.body, unique=True)
    except UnicodeDecodeError as error:
        raise HTTPFailure(400, "the body can't be read: it is not UTF-8", "invalid_json") from error
    except strict_json.JsonError as error:
        raise HTTPFailure(400, f"the body can't be read: {error}", "invalid_json") from error
    if any(not each.isascii() and _HALF_A_CHARACTER.search(each) for each in _texts(value)):
        raise HTTPFailure(400, "the body holds half of a surrogate pair, which is no character", "invalid_json")
    return value


def _texts(value: Any) -> Iterable[str]:
    """All texts in a value, keys included. The parser has bounded how deep it is."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _texts(each)


class _Parts:
    """Collects the parts of a form as the parser finds them."""

    def __init__(self) -> None:
        self._fields: dict[str, list[str]] = {}
        self._files: dict[str, list[bytes]] = {}
        self._count = 0
        self._complete = False
        self._header, self._header_value, self._data = bytearray(), bytearray(), bytearray()
        self._name, self._is_file = "", False

    def parser(self, boundary: str) -> MultipartParser:
        """A parser that reports to this object."""
        return MultipartParser(
            boundary.encode("latin-1"),
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._check_name,
                "on_part_data": self._extend,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def form(self) -> Form:
        """The form, once all of it was parsed."""
        if not self._complete:
            raise HTTPFailure(400, "the form is cut off: its last boundary is missing", "invalid_form")
        return Form(
            {name: tuple(texts) for name, texts in self._fields.items()},
            {name: tuple(files) for name, files in self._files.items()},
        )

    def _begin(self) -> None:
        self._count += 1
        if self._count > MOST_PARTS:
            raise HTTPFailure(413, f"the form has over {MOST_PARTS} parts, which is the limit", "too_large")
        self._name, self._is_file, self._data = "", False, bytearray()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value.decode("latin-1"))
            try:
                self._name = options.get(b"name", b"")[:_LONGEST_NAME].decode("utf-8")
            except UnicodeDecodeError as error:
                raise HTTPFailure(400, "the form has a field whose name is not UTF-8", "invalid_form") from error
            self._is_file = b"filename" in options or b"filename*" in options
        self._header.clear()
        self._header_value.clear()

    def _check_name(self) -> None:
        if not self._name:
            raise HTTPFailure(400, "the form has a part without a name", "invalid_form")

    def _extend(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file and len(self._data) + end - start > LONGEST_TEXT:
            message = f"the field {shown(self._name)} has over {LONGEST_TEXT:,} bytes, which is the limit"
            raise HTTPFailure(413, message, "too_large", self._name)
        self._data += memoryview(data)[start:end]

    def _end(self) -> None:
        if self._is_file:
            self._files.setdefault(self._name, []).append(bytes(self._data))
        else:
            try:
                self._fields.setdefault(self._name, []).append(self._data.decode("utf-8"))
            except UnicodeDecodeError as error:
                message = f"the field {shown(self._name)} is not UTF-8"
                raise HTTPFailure(400, message, "invalid_form", self._name) from error
        self._data = bytearray()

    def _finish(self) -> None:
        self._complete = True
