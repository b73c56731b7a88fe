"""What the page lets through: posts to a server as no browser would send them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.web.posts import API, Client, Function, functions
from vinograph.web.guard import LARGEST_JSON
from vinograph.web.uploads import UploadLimits

ROUTES = (
    *("api/predict", "call/predict", "call/v2/predict", "run/other", "component_server", "vibe-edit", "vibe-code"),
    *("process_recording", "stream/1", "login", "run-history/connect"),
)
PLACES = (
    *("info", "openapi.json", "file/etc/passwd", "proxy=https://example.org", "queue/status", "token", "runs"),
    *("custom_component/1/client/component/style.css", "deep_link", "vibe-code"),
)


JSON = {"Content-Type": "application/json"}


def png(colour: str = "red", size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def client(server: str) -> Client:
    """A visitor who has opened the page."""
    client = Client(server)
    assert client.get("/").status == 200
    assert client.cookie
    return client


@pytest.fixture
def with_picture(client: Client) -> list[Function]:
    """The functions that take a picture."""
    there = [each for each in functions(client.config()) if "image" in each.kinds]
    assert len(there) >= 4
    return there


class TestFiles:
    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        (tmp_path / "secret.png").write_bytes(png())
        return tmp_path / "secret.png"

    def forms(self, path: str) -> Iterator[Any]:
        """How a value names a file: as a picture does, an editor with its layers, a gallery."""
        yield {"path": path}
        yield {"path": path, "meta": {"_type": "gradio.FileData"}}
        yield {"path": path, "url": path, "is_stream": True}
        yield {"background": None, "layers": [{"path": path}], "composite": {"path": path}}
        yield [{"image": {"path": path}, "caption": None}]

    def test_none_but_the_visitors_own(self, client: Client, with_picture: list[Function], outside: Path) -> None:
        """Existing and missing files get the same answer, in every input and in every form."""
        own = Path(client.uploaded(png()))
        named = [str(outside), str(outside.with_name("nothing.png")), f"{own.parent}/../../../../..{outside}"]
        for path in [*named, "/etc/passwd", "http://127.0.0.1:1/x.png", str(own.parent), f"{own}\0", "", "x" * 5000]:
            for form in self.forms(path):
                for function in with_picture:
                    answer = client.join(function.index, function.with_value("image", form))
                    assert (answer.status, answer.detail) == (400, "no such file")

    @pytest.mark.parametrize("route", ["queue/join", "run/predict"])
    def test_nor_in_any_other_input(self, client: Client, outside: Path, route: str) -> None:
        for function in functions(client.config()):
            for place in range(len(function.kinds)):
                data = [*function.values]
                data[place] = {"path": str(outside)}
                call = {"fn_index": function.index, "data": data, "session_hash": client.session}
                assert client.post(route, call).detail == "no such file"

    def test_nor_a_link_to_one(self, client: Client, with_picture: list[Function], outside: Path) -> None:
        link = Path(client.uploaded(png())).with_name("link.png")
        link.symlink_to(outside)
        function = with_picture[0]
        assert client.join(function.index, function.with_value("image", {"path": str(link)})).status == 400
        assert client.file(str(link)).status == 404

    def test_nor_another_visitors(self, client: Client, server: str, with_picture: list[Function]) -> None:
        other = Client(server)
        other.get("/")
        path = other.uploaded(png())
        function = with_picture[0]
        value = function.with_value("image", {"path": path})
        assert client.join(function.index, value).detail == "no such file"
        assert other.join(function.index, value).status == 200

    def test_nothing_else_is_shown(self, client: Client, outside: Path) -> None:
        path = client.uploaded(png())
        assert client.file(path).body == png()
        hidden = [str(outside), str(outside.with_name("nothing.png")), "/etc/passwd", "https://example.org/", ""]
        for each in [*hidden, f"{path}/../../../../..{outside}", str(Path(path).parent), path + "\0"]:
            assert (client.file(each).status, client.file(each).text) == (404, "no such file")

    def test_what_is_no_picture_is_only_saved(self, client: Client) -> None:
        """Shown, it could be a page that acts in this one's name."""
        for name in ("x.html", "x.svg", "x"):
            answer = client.file(client.uploaded(b"<script>alert(1)</script>", name))
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a" * 300 + ".png", ".bashrc", "ü\\..\\b.png", ""])
    def test_a_name_leads_nowhere(self, client: Client, name: str) -> None:
        path = client.uploaded(png(), name)
        assert client.file(path).body == png()
        assert Path(path).parent.parent == Path(client.uploaded(png())).parent.parent

    def test_a_broken_picture_is_named_without_its_folder(self, client: Client) -> None:
        path = client.uploaded(b"no picture", "house.png")
        function = next(each for each in functions(client.config()) if each.kinds == ("dropdown", "image"))
        assert client.join(function.index, function.with_value("image", {"path": path})).status == 200
        events = json.dumps(list(client.events()))
        assert "house.png is not a PNG, JPEG or WebP picture" in events
        assert str(Path(path).parent) not in events.replace(json.dumps({"path": path})[1:-1], "")


class TestWhoAsks:
    @pytest.mark.parametrize("path", ["/", f"{API}queue/data?session_hash=a", f"{API}heartbeat/a", "/theme.css"])
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "192.0.2.1", "", "a@127.0.0.1", "[::1"]
    )
    def test_another_host(self, client: Client, path: str, host: str) -> None:
        answer = client.get(path, Host=host, Origin=f"http://{host}")
        assert answer.status in (400, 403)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "x"])
    def test_another_origin(self, client: Client, origin: str) -> None:
        for answer in (
            client.get("/", Origin=origin),
            client.post("queue/join", {"fn_index": 0, "data": [], "session_hash": "a"}, Origin=origin),
            client.ask(
                "OPTIONS", f"{API}queue/join", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
            ),
        ):
            assert answer.status == 403
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]

    def test_its_own(self, client: Client, server: str) -> None:
        assert client.get("/", Origin=server.rstrip("/")).status == 200
        port = server.rstrip("/").rpartition(":")[2]
        assert client.get("/", Host=f"localhost:{port}", Origin=f"http://localhost:{port}").status == 200

    @pytest.mark.parametrize("route", ROUTES)
    def test_a_route_that_no_control_takes(self, client: Client, route: str) -> None:
        assert client.post(route, {"data": []}).status in (404, 405)

    @pytest.mark.parametrize("place", PLACES)
    def test_a_place_that_no_control_asks_for(self, client: Client, place: str) -> None:
        assert client.get(API + place).status == 404
        assert client.get("/monitoring").status == 404


class TestBodies:
    @pytest.mark.parametrize("path", [f"{API}queue/join", f"{API}run/predict", f"{API}cancel", f"{API}reset"])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_too_long(self, client: Client, path: str, chunked: bool) -> None:
        body = json.dumps({"data": ["x" * LARGEST_JSON]}).encode()
        pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
        headers = {**JSON, "Transfer-Encoding": "chunked"} if chunked else JSON
        answer = client.ask("POST", path, pieces if chunked else body, headers)
        assert (answer.status, "1,000,000 bytes" in answer.detail) == (413, True)

    def test_a_length_that_is_none(self, client: Client) -> None:
        for said in ("9" * 30, "-1", "x"):
            answer = client.ask("POST", f"{API}queue/join", b"", {**JSON, "Content-Length": said})
            assert answer.status in (400, 413)

    @pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 5000, "{", "[]", '{"data": NaN}', '{"data": "\\ud800"}'])
    def test_no_json_that_can_be_used(self, client: Client, body: str) -> None:
        answer = client.ask("POST", f"{API}queue/join", body.encode(), JSON)
        assert answer.status == 400
        assert len(answer.detail) < 200

    @pytest.mark.parametrize("index", [None, -1, 10**6, "0", True, 10**15])
    def test_a_function_that_is_none(self, client: Client, index: Any) -> None:
        call = {"fn_index": index, "data": [], "session_hash": client.session}
        assert client.post("queue/join", call).detail == "the page has no such function"

    def test_values_of_another_kind(self, client: Client) -> None:
        for function in functions(client.config()):
            assert client.join(function.index, [*function.values, None]).status == 400
            for place in range(len(function.kinds)):
                data = [*function.values]
                data[place] = [1]
                assert client.join(function.index, data).status == 400

    def test_a_control_that_holds_nothing(self, client: Client) -> None:
        for function in functions(client.config()):
            if "slider" in function.kinds:
                values = function.with_value("slider", None)
                assert client.join(function.index, values, event_data={}).status == 200
                said = [each for each in client.events() if each["msg"] == "process_completed"]
                refused = "takes no such value" in json.dumps(said)
                assert refused or said[-1]["success"]  # the estimate and live drawing take the default instead

    def test_a_prompt_that_is_too_long_is_refused_before_it_is_drawn(self, client: Client) -> None:
        for function in functions(client.config()):
            if "click" in function.targets and {"slider", "textbox"} <= {*function.kinds}:
                place = function.kinds.index("textbox")
                break
        else:
            raise AssertionError("nothing draws")
        model = next(value for kind, value in zip(function.kinds, function.values, strict=True) if kind == "dropdown")
        assert model
        data = [*function.values]
        data[place] = "a." * 24_000
        assert client.join(function.index, data).status == 200
        assert "has 48,000 characters; give at most 20,000" in json.dumps(list(client.events()))


class TestUploads:
    @pytest.mark.parametrize("chunked", [False, True])
    def test_too_large(self, client: Client, chunked: bool) -> None:
        folder = Path(client.uploaded(png())).parents[1]
        before = sorted(folder.iterdir())
        assert client.upload(bytes(UploadLimits().largest + 20_000), chunked=chunked).status == 413
        assert sorted(folder.iterdir()) == before

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("multipart/form-data", b""),
            ("multipart/form-data; boundary=x", b"--y\r\n"),
            ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n"),
            ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n"),
            ("application/x-www-form-urlencoded", b"files=x"),
            ("text/plain", b"x"),
            ("", b""),
        ],
    )
    def test_no_form_with_a_file(self, client: Client, kind: str, body: bytes) -> None:
        answer = client.ask("POST", f"{API}upload", body, {"Content-Type": kind})
        assert answer.status == 400

    def test_the_oldest_go(self, client: Client) -> None:
        paths = [client.uploaded(png()) for _ in range(UploadLimits().files + 3)]
        assert [client.file(path).status for path in paths] == [404] * 3 + [200] * UploadLimits().files
