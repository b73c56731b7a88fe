"""What may come in: host names, origins, keys, and the size and pace of bodies and heads."""

from __future__ import annotations

import base64
import contextlib
import http.client
import select
import socket
import time
import tracemalloc
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.serve.serving import JSON, QuickService, ask, configured, serving
from vinograph.serve import protocol, security
from vinograph.serve.api_keys import Keys
from vinograph.serve.configuration import Limits

DRAW, OPTIONS, TXT2IMG = "/v1/images/generations", "/sdapi/v1/options", "/sdapi/v1/txt2img"
PROMPT = {"prompt": "a house"}
KEYS = ("sk-0123456789abcdef", "reader:0123456789abcdef")
PROBES = ("/livez", "/readyz")
PROTECTED = ("/v1/models", OPTIONS, "/metrics", "/openapi.json", "/", "/nothing", "/internal/ping")


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


class TestKeys:
    """API keys."""

    @pytest.fixture
    def locked(self, quick: QuickService) -> Iterator[str]:
        with serving(quick, configured(keys=KEYS)) as address:
            yield address

    @pytest.mark.parametrize("path", PROTECTED)
    def test_every_route_asks_for_one(self, locked: str, path: str) -> None:
        answer = ask(locked, path)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer" if path.startswith("/v1") else "Basic")
        assert ask(locked, path, headers={"x-api-key": KEYS[0]}).status in (200, 404)

    @pytest.mark.parametrize("path", PROBES)
    def test_but_the_probes(self, locked: str, path: str) -> None:
        assert ask(locked, path).status == 200

    def test_and_pictures_whose_address_is_a_secret(self, locked: str) -> None:
        right = {"Authorization": f"Bearer {KEYS[0]}"}
        link = ask(locked, DRAW, {**PROMPT, "response_format": "url"}, right).json["data"][0]["url"]
        assert ask(locked, urlsplit(link).path).status == 200
        assert ask(locked, "/v1/images/files/../../models").status in (401, 404)
        assert ask(locked, "/v1/images/files/x.png", b"", method="POST").status == 401

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": f"Bearer {KEYS[0]}"},
            {"Authorization": f"bearer  {KEYS[0]} "},
            {"x-api-key": KEYS[0]},
            {"Authorization": f"Bearer {KEYS[1]}"},
            basic(f"anybody:{KEYS[0]}"),
            basic(f":{KEYS[0]}"),
            basic(KEYS[1]),
        ],
    )
    @pytest.mark.parametrize("path", ["/v1/models", OPTIONS, "/metrics"])
    def test_ways_to_send_one(self, locked: str, path: str, headers: dict[str, str]) -> None:
        assert ask(locked, path, headers=headers).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": f"Bearer {KEYS[0][:-1]}"},
            {"Authorization": f"Bearer {KEYS[0]}x"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer"},
            {"Authorization": KEYS[0]},
            {"Authorization": f"Digest {KEYS[0]}"},
            {"Authorization": "Basic not-base64!"},
            {"Authorization": "Basic "},
            {"x-api-key": ""},
            {"x-api-key": ",".join(KEYS)},
            {"Cookie": f"key={KEYS[0]}"},
            basic(f"{KEYS[0]}:"),
            basic("reader:"),
            basic("writer:0123456789abcdef"),
        ],
    )
    def test_what_is_none(self, locked: str, headers: dict[str, str]) -> None:
        answer = ask(locked, DRAW, PROMPT, headers)
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
        assert not any(key in answer.body.decode() for key in KEYS)

    def test_a_key_in_the_query_is_none(self, locked: str) -> None:
        assert ask(locked, f"/v1/models?api_key={KEYS[0]}&key={KEYS[0]}").status == 401

    def test_all_keys_are_compared_whichever_is_right(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[bytes] = []

        def compare(one: bytes, other: bytes) -> bool:
            compared.append(other)
            return one == other

        monkeypatch.setattr("vinograph.serve.api_keys.hmac.compare_digest", compare)
        keys = Keys(f"key-{index}" for index in range(5))
        counts = []
        for key in (b"key-0", b"key-4", b"wrong", b"k"):
            compared.clear()
            keys.admit({b"x-api-key": key})
            counts.append((len(compared), {len(each) for each in compared}))
        assert counts == [(5, {32})] * 4


class TestHosts:
    """The names under which the server answers: DNS rebinding."""

    @pytest.mark.parametrize(
        "name", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil", "10.0.0.1", "a b"]
    )
    @pytest.mark.parametrize("path", ["/v1/models", OPTIONS, "/metrics", "/"])
    def test_another_name_is_refused(self, address: str, name: str, path: str) -> None:
        answer = ask(address, path, headers={"Host": name})
        assert answer.status == 403
        assert b"--allowed-host" in answer.body

    @pytest.mark.parametrize(
        "name", ["localhost", "localhost:1234", "127.0.0.1", "[::1]:80", "LOCALHOST.", "draw.example"]
    )
    def test_its_own_names_and_allowed_ones(self, quick: QuickService, name: str) -> None:
        with serving(quick, configured(allowed_hosts=("draw.example",))) as address:
            assert ask(address, "/v1/models", headers={"Host": name}).status == 200

    def test_probes_are_asked_by_any_name(self, address: str) -> None:
        assert ask(address, "/livez", headers={"Host": "10.1.2.3:8080"}).status == 200


class TestOrigins:
    """Web pages of other sites."""

    FOREIGN = ("https://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "file://", "")

    @pytest.mark.parametrize("origin", FOREIGN)
    @pytest.mark.parametrize("path", [DRAW, TXT2IMG, "/sdapi/v1/interrupt", OPTIONS])
    def test_a_foreign_page_changes_nothing(self, address: str, quick: QuickService, origin: str, path: str) -> None:
        answer = ask(address, path, PROMPT, {"Origin": origin})
        assert answer.status == 403
        assert not quick.submitted

    def test_a_form_of_a_foreign_page_draws_nothing(self, address: str, quick: QuickService) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            sent = {"Content-Type": kind}
            assert ask(address, DRAW, b'{"prompt": "a"}', sent).status == 415
            assert ask(address, DRAW, b'{"prompt": "a"}', {**sent, "Origin": "null"}).status == 403
        assert not quick.submitted

    def test_its_own_page_may(self, address: str) -> None:
        assert ask(address, DRAW, PROMPT, {"Origin": address}).status == 200

    def test_reading_shows_nothing_to_a_foreign_page(self, address: str) -> None:
        answer = ask(address, "/v1/models", headers={"Origin": "https://evil.example"})
        assert answer.headers["Access-Control-Allow-Origin"] is None

    @pytest.fixture
    def shared(self, quick: QuickService) -> Iterator[str]:
        with serving(quick, configured(allowed_origins=("https://page.example",), keys=KEYS)) as address:
            yield address

    def test_an_allowed_page_asks_first_and_then_draws(self, shared: str) -> None:
        asked = {
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
        }
        before = ask(shared, DRAW, headers=asked, method="OPTIONS")
        assert before.status == 204
        assert before.headers["Access-Control-Allow-Origin"] == "https://page.example"
        assert "POST" in before.headers["Access-Control-Allow-Methods"]
        assert before.headers["Access-Control-Allow-Headers"] == asked["Access-Control-Request-Headers"]
        after = ask(shared, DRAW, PROMPT, {"Origin": "https://page.example", "x-api-key": KEYS[0]})
        assert after.status == 200
        assert after.headers["Access-Control-Allow-Origin"] == "https://page.example"
        assert after.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in {**before.headers, **after.headers}

    def test_an_allowed_page_reads_errors(self, shared: str) -> None:
        answer = ask(shared, DRAW, PROMPT, {"Origin": "https://page.example"})
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, "https://page.example")

    @pytest.mark.parametrize("origin", ["https://page.example.evil", "http://page.example", "null"])
    def test_another_page_is_told_no(self, shared: str, origin: str) -> None:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = ask(shared, DRAW, headers=asked, method="OPTIONS")
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (403, None)

    def test_any_page_but_those_without_a_name(self, quick: QuickService) -> None:
        with serving(quick, configured(allowed_origins=("*",))) as address:
            assert ask(address, DRAW, PROMPT, {"Origin": "https://any.example"}).status == 200
            assert ask(address, DRAW, PROMPT, {"Origin": "null"}).status == 403


class TestBodies:
    """Bodies that are too large, in any way, or too slow."""

    LIMIT = 1_000_000

    @pytest.fixture
    def small(self, quick: QuickService) -> Iterator[str]:
        with serving(quick, configured(limits=Limits(body=self.LIMIT))) as address:
            yield address

    @pytest.mark.parametrize("path", [DRAW, TXT2IMG, "/v1/images/edits", "/sdapi/v1/png-info", OPTIONS])
    def test_a_declared_gigabyte_is_refused_before_it_is_sent(self, small: str, path: str) -> None:
        connection = http.client.HTTPConnection(urlsplit(small).netloc, timeout=20)
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(10**9))
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        connection.close()

    @pytest.mark.parametrize("length", ["9" * 30, "9" * 500])
    def test_a_length_beyond_all_numbers(self, small: str, length: str) -> None:
        with connected(small) as peer:
            peer.sendall(f"POST {DRAW} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
            assert status_of(peer) in (400, 413)

    def test_a_body_in_chunks_without_its_length(self, small: str) -> None:
        tracemalloc.start()
        try:
            answer = ask(small, DRAW, (b" " * 100_000 for _ in range(100)), JSON)
            assert tracemalloc.get_traced_memory()[1] < 10 * self.LIMIT
        finally:
            tracemalloc.stop()
        assert answer.status == 413

    def test_the_connection_goes_on_after_it(self, small: str) -> None:
        connection = http.client.HTTPConnection(urlsplit(small).netloc, timeout=20)
        connection.request("POST", DRAW, b" " * (self.LIMIT + 1), JSON)
        first = connection.getresponse()
        assert (first.status, first.read() != b"") == (413, True)
        connection.request("GET", "/v1/models")
        assert connection.getresponse().status == 200
        connection.close()

    def test_a_body_that_trickles(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(security, "BODY_SECONDS", 0.3)
        with connected(address) as peer:
            peer.sendall(
                f"POST {DRAW} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Content-Length: 500\r\n\r\n".encode()
            )
            for _ in range(20):
                peer.sendall(b" ")
                time.sleep(0.05)
                if readable(peer):
                    break
            assert status_of(peer) == 408

    def test_many_bodies_at_once(self, quick: QuickService) -> None:
        limits = Limits(body=self.LIMIT)
        head = f"POST {DRAW} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {self.LIMIT}\r\n\r\n"
        with serving(quick, configured(limits=limits)) as address, contextlib.ExitStack() as stack:
            peers = [stack.enter_context(connected(address)) for _ in range(9)]
            for peer in peers:
                peer.sendall(head.encode() + b" " * (self.LIMIT - 1))
            refused, _, _ = select.select(peers, [], [], 20)
            assert [status_of(each) for each in refused] == [503]

    def test_the_sum_of_all_bodies_falls_again(self, small: str) -> None:
        body = b'{"prompt": "a"}' + b" " * (self.LIMIT - 20)
        assert [ask(small, DRAW, body, JSON).status for _ in range(12)] == [200] * 12


class TestHeads:
    """Request lines and headers."""

    def test_too_many_headers(self, address: str) -> None:
        answer = ask(address, "/v1/models", headers={f"x-{index}": "1" for index in range(200)})
        assert (answer.status, answer.json["error"]["code"]) == (431, "headers_too_large")

    def test_too_long_a_header(self, address: str) -> None:
        assert ask(address, "/v1/models", headers={"x-long": "1" * 40_000}).status == 431

    def test_a_head_without_end(self, address: str) -> None:
        with connected(address) as peer:
            peer.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-long: " + b"1" * 200_000)
            assert status_of(peer) == 400

    def test_a_flood_of_ranges_is_passed_over(self, address: str) -> None:
        ranges = "bytes=" + ",".join(f"{index}-" for index in range(5000))
        answer = ask(address, "/v1/models", headers={"Range": ranges})
        assert answer.status == 200
        assert answer.seconds < 2

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/images/files/../../../etc/passwd",
            "/v1/images/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            "/%2e%2e/etc/passwd",
        ],
    )
    def test_paths_that_climb(self, address: str, path: str) -> None:
        assert ask(address, path).status == 404

    @pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\0" * 100])
    def test_what_is_no_http(self, address: str, junk: bytes) -> None:
        with connected(address) as peer:
            peer.sendall(junk + b"\r\n\r\n")
            assert status_of(peer) == 400

    def test_a_websocket_is_an_ordinary_request(self, address: str) -> None:
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "x",
        }
        assert ask(address, "/v1/models", headers=upgrade).status == 200

    def test_connections_that_never_ask_are_closed(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "WAITING_SECONDS", 0.3)
        peers = [connected(address) for _ in range(3)]
        peers[1].sendall(b"GET /v1/models HTTP/1.1\r\n")
        peers[2].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"alive"):
            answer += peers[2].recv(1000)
        peers[2].sendall(b"GET /livez HTTP/1.1\r\n")
        assert all(closed(peer) for peer in peers)


class TestSlowReaders:
    """Clients that take their response slowly, or not at all."""

    SIZE = 20_000_000  # bytes; more than the system's buffers take

    @pytest.fixture
    def peer(self, monkeypatch: pytest.MonkeyPatch, quick: QuickService) -> Iterator[socket.socket]:
        monkeypatch.setattr(protocol, "WAITING_SECONDS", 0.3)

        async def large(scope: Scope, receive: Receive, send: Send) -> None:
            await Response(b"x" * self.SIZE)(scope, receive, send)

        with serving(quick, configured(), large) as address, connected(address) as peer:
            peer.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            yield peer

    def test_who_reads_slowly_gets_all_of_it(self, peer: socket.socket) -> None:
        received = 0
        while received < self.SIZE:
            piece = peer.recv(1_500_000)
            assert piece
            received += len(piece)
            time.sleep(0.03)

    def test_who_reads_nothing_is_dropped(self, peer: socket.socket) -> None:
        time.sleep(1)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := peer.recv(1_000_000):
                received += len(piece)
        assert received < self.SIZE


def connected(address: str) -> socket.socket:
    place = urlsplit(address)
    return socket.create_connection((place.hostname, place.port), timeout=20)


def readable(peer: socket.socket, seconds: float = 0) -> bool:
    return bool(select.select([peer], [], [], seconds)[0])


def closed(peer: socket.socket) -> bool:
    """Whether the server closes the connection, having sent nothing more."""
    with peer, contextlib.suppress(ConnectionResetError):
        return peer.recv(100) == b""
    return True


def status_of(peer: socket.socket) -> int:
    with peer.makefile("rb") as stream:
        return int(stream.readline().split()[1])
