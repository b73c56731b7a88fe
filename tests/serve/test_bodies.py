"""Bodies of requests: what is read, and what is refused before it costs memory."""

from __future__ import annotations

import asyncio
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from vinograph.serve.bodies import LONGEST_TEXT, MOST_PARTS, MOST_VALUES, Form, read_form, read_json
from vinograph.serve.configuration import Limits
from vinograph.serve.failures import HTTPFailure

LIMITS = Limits(body=3_000_000)
JSON = {"Content-Type": "application/json"}
BOUNDARY = "xyzzy"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Sent:
    """A request whose body comes in pieces; it counts how many were taken."""

    def __init__(self, pieces: Iterable[bytes], headers: Mapping[str, str], ends: bool = True) -> None:
        self.taken = 0
        self._pieces = iter(pieces)
        self._ends = ends
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.request = Request({"type": "http", "method": "POST", "headers": raw}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        piece = next(self._pieces, None)
        if piece is None:
            if not self._ends:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}
        self.taken += 1
        return {"type": "http.request", "body": piece, "more_body": True}


def as_json(body: bytes, headers: Mapping[str, str] = JSON, limits: Limits = LIMITS) -> dict[str, Any]:
    return asyncio.run(read_json(Sent([body], headers).request, limits))


def as_form(*pieces: bytes, headers: Mapping[str, str] = FORM, limits: Limits = LIMITS) -> Form:
    return asyncio.run(read_form(Sent(pieces, headers).request, limits))


def status(read: Callable[[bytes], object], body: bytes) -> int:
    try:
        read(body)
    except HTTPFailure as failure:
        return failure.status
    return 200


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    more = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: image/png'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


class TestJson:
    """Bodies that are one JSON object."""

    @pytest.mark.parametrize(
        "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/x+json"]
    )
    def test_an_object_is_read(self, kind: str) -> None:
        value = as_json('{"prompt": "ein Häuschen 🏠", "n": 2, "more": [1.5, null]}'.encode(), {"Content-Type": kind})
        assert value == {"prompt": "ein Häuschen 🏠", "n": 2, "more": [1.5, None]}

    @pytest.mark.parametrize(
        "kind",
        [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "é"],
    )
    def test_another_content_type_is_415(self, kind: str | None) -> None:
        with pytest.raises(HTTPFailure, match="send application/json") as caught:
            as_json(b"{}", {} if kind is None else {"Content-Type": kind})
        assert caught.value.status == 415

    def test_another_charset_is_415(self) -> None:
        with pytest.raises(HTTPFailure, match="send UTF-8") as caught:
            as_json(b"{}", {"Content-Type": "application/json; charset=utf-16"})
        assert caught.value.status == 415

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip", "zstd"])
    def test_a_compressed_body_is_415(self, encoding: str) -> None:
        sent = Sent([b"{}"], {**JSON, "Content-Encoding": encoding})
        with pytest.raises(HTTPFailure, match="compressed") as caught:
            asyncio.run(read_json(sent.request, LIMITS))
        assert (caught.value.status, sent.taken) == (415, 0)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b'"a"',
            b"null",
            b"{",
            b'{"a": 1} {"b": 2}',
            b'{"a": NaN}',
            b'{"a": Infinity}',
            b'{"a": -Infinity}',
            b'{"a": 1e999}',
            b'{"a": ' + b"9" * 400 + b"}",
            b'{"prompt": "a", "prompt": "b"}',
            b'{"a": {"n": 1, "n": 2}}',
            b'{"prompt": "\\ud800"}',
            b'{"\\udfff": 1}',
            b'{"a": [["\\ud83d"]]}',
            b'{"prompt": "\xff"}',
            b"\xef\xbb\xbf{}",
            '{"a": "é"}'.encode("utf-16"),
            b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}",
            b'{"a": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
            b'{"a": ' * 90_000,
            b'{"a": "\n"}',
        ],
    )
    def test_what_is_no_object_is_400(self, body: bytes) -> None:
        with pytest.raises(HTTPFailure, match=r"^the body ") as caught:
            as_json(body)
        assert (caught.value.status, caught.value.code) == (400, "invalid_json")

    def test_a_surrogate_pair_is_a_character(self) -> None:
        assert as_json(b'{"prompt": "\\ud83c\\udfe0"}') == {"prompt": "🏠"}

    @pytest.mark.parametrize("value", [b"[],", b"{},", b"0,"])
    def test_values_without_number_cost_no_memory(self, value: bytes) -> None:
        body = b'{"a": [' + value * (MOST_VALUES + 1) + b"0]}"
        tracemalloc.start()
        try:
            with pytest.raises(HTTPFailure, match="values"):
                as_json(body)
            assert tracemalloc.get_traced_memory()[1] < 2 * len(body) + 1_000_000
        finally:
            tracemalloc.stop()

    def test_a_body_over_the_limit_is_read_no_further(self) -> None:
        sent = Sent((b" " * 100_000 for _ in range(1000)), JSON)
        with pytest.raises(HTTPFailure, match="over 3,000,000 bytes") as caught:
            asyncio.run(read_json(sent.request, LIMITS))
        assert (caught.value.status, sent.taken) == (413, 31)

    def test_a_client_that_goes_away_ends_it(self) -> None:
        with pytest.raises(ClientDisconnect):
            asyncio.run(read_json(Sent([b'{"a":'], JSON, ends=False).request, LIMITS))

    @given(st.binary(max_size=200))
    def test_any_bytes_are_read_or_refused(self, body: bytes) -> None:
        assert status(as_json, body) in (200, 400)

    @given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(-9, 9), st.lists)))
    def test_what_a_client_writes_is_what_is_read(self, value: dict[str, Any]) -> None:
        assert as_json(json.dumps(value).encode()) == value


class TestForms:
    """Multipart forms."""

    def test_fields_are_texts_and_files_are_bytes(self) -> None:
        form = as_form(part("prompt", "ein Häuschen".encode()), part("image[]", b"\0\r\n1", "a.png"), END)
        assert form == Form({"prompt": ("ein Häuschen",)}, {"image[]": (b"\0\r\n1",)})

    def test_repeated_parts_are_kept_in_order(self) -> None:
        form = as_form(part("image[]", b"1", "a"), part("n", b"1"), part("image[]", b"2", "b"), part("n", b"2"), END)
        assert form == Form({"n": ("1", "2")}, {"image[]": (b"1", b"2")})

    def test_a_file_is_never_named_by_its_client(self) -> None:
        form = as_form(part("image", b"1", "../../etc/passwd"), END)
        assert "passwd" not in repr(form)

    def test_a_client_of_another_kind(self) -> None:
        sent = httpx.Request("POST", "http://a", data={"prompt": "ä"}, files=[("image", ("ä.png", b"1"))])
        assert as_form(sent.read(), headers=dict(sent.headers)) == Form({"prompt": ("ä",)}, {"image": (b"1",)})

    @given(st.binary(max_size=300), st.lists(st.integers(0, 500), max_size=6))
    def test_any_cut_into_pieces_gives_the_same(self, data: bytes, cuts: list[int]) -> None:
        body = part("a", b"text") + part("b", data, "b") + END
        places = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
        pieces = [body[start:end] for start, end in itertools.pairwise(places)]
        assert as_form(*pieces) == Form({"a": ("text",)}, {"b": (data,)})

    @pytest.mark.parametrize("kind", [None, "application/json", "application/x-www-form-urlencoded", "multipart/mixed"])
    def test_another_content_type_is_415(self, kind: str | None) -> None:
        with pytest.raises(HTTPFailure, match="send multipart/form-data") as caught:
            as_form(b"", headers={} if kind is None else {"Content-Type": kind})
        assert caught.value.status == 415

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Type": "multipart/form-data"},
            {"Content-Type": "multipart/form-data; boundary="},
            {"Content-Type": f"multipart/form-data; boundary={'x' * 3000}"},
            {"Content-Type": "multipart/form-data; boundary=other"},
            {"Content-Type": "multipart/form-data; boundary=\xff\xfe\0"},
        ],
    )
    def test_a_junk_boundary_is_400(self, headers: Mapping[str, str]) -> None:
        with pytest.raises(HTTPFailure) as caught:
            as_form(part("a", b"b"), END, headers=headers)
        assert caught.value.status == 400

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"junk",
            b"\r\n" * 1000,
            part("a", b"b"),
            part("a", b"b")[:-10],
            part("a", b"\xff") + END,
            f"--{BOUNDARY}\r\n\r\nb\r\n".encode() + END,
            f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nb\r\n".encode() + END,
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nb\r\n'.encode("latin-1") + END,
            f"--{BOUNDARY}\r\n".encode() + b"X: 1\r\n" * 100 + b"\r\nb\r\n" + END,
            f"--{BOUNDARY}\r\nX: ".encode() + b"1" * 1_000_000 + b"\r\n\r\nb\r\n" + END,
        ],
    )
    def test_a_form_that_cannot_be_read_is_400(self, body: bytes) -> None:
        with pytest.raises(HTTPFailure) as caught:
            as_form(body)
        assert (caught.value.status, caught.value.code) == (400, "invalid_form")

    def test_thousands_of_parts_are_413(self) -> None:
        with pytest.raises(HTTPFailure, match=f"over {MOST_PARTS} parts") as caught:
            as_form(part("a", b"") * 5000, END)
        assert caught.value.status == 413

    def test_a_text_field_of_a_gigabyte_is_413_at_its_first_megabyte(self) -> None:
        def pieces() -> Iterator[bytes]:
            yield part("prompt", b"")[:-2]
            for _ in range(1000):
                yield b"x" * 1_000_000

        sent = Sent(pieces(), FORM)
        tracemalloc.start()
        try:
            with pytest.raises(HTTPFailure, match=f"'prompt' has over {LONGEST_TEXT:,}") as caught:
                asyncio.run(read_form(sent.request, Limits()))
            assert tracemalloc.get_traced_memory()[1] < 6_000_000
        finally:
            tracemalloc.stop()
        assert (caught.value.status, caught.value.param, sent.taken) == (413, "prompt", 3)

    def test_a_file_of_a_gigabyte_is_413_at_the_limit(self) -> None:
        sent = Sent([part("image", b"", "a")[:-2], *[b"x" * 1_000_000] * 1000], FORM)
        with pytest.raises(HTTPFailure, match="over 3,000,000 bytes") as caught:
            asyncio.run(read_form(sent.request, LIMITS))
        assert (caught.value.status, sent.taken) == (413, 4)

    def test_a_compressed_form_is_415(self) -> None:
        with pytest.raises(HTTPFailure, match="compressed"):
            as_form(END, headers={**FORM, "Content-Encoding": "gzip"})

    @given(st.binary(max_size=200))
    def test_any_bytes_are_read_or_refused(self, body: bytes) -> None:
        assert status(as_form, f"--{BOUNDARY}".encode() + body + END) in (200, 400, 413)
