"""A client that posts to the page what no browser would."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

API = "/gradio_api/"
SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def detail(self) -> str:
        """Why the server refused."""
        return str(json.loads(self.body)["detail"])


@dataclass
class Client:
    """One visitor, with a cookie and one open page."""

    address: str
    cookie: str = ""
    session: str = field(default_factory=lambda: secrets.token_hex(6))

    def ask(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        """Send one request. A body that comes in pieces is sent in chunks, without its length."""
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=SECONDS)
        try:
            with_cookie = {"Cookie": self.cookie} if self.cookie else {}
            connection.request(
                method, path, body, {**with_cookie, **headers}, encode_chunked=not isinstance(body, bytes | None)
            )
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if cookie := answer.headers["Set-Cookie"]:
            self.cookie = cookie.partition(";")[0]
        return Answer(answer.status, dict(answer.headers), content)

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page or a file."""
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, value: Any, **headers: str) -> Answer:
        """Post JSON."""
        return self.ask("POST", API + path, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def join(self, function: int, data: list[Any], **more: Any) -> Answer:
        """Ask for one of the page's functions."""
        call = {"fn_index": function, "data": data, "session_hash": self.session, "event_data": None, **more}
        return self.post("queue/join", call)

    def upload(self, content: bytes, name: str = "picture.png", *, chunked: bool = False) -> Answer:
        """Upload a file."""
        head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body = b"".join([head, content, b"\r\n--edge--\r\n"])
        pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
        headers = {"Content-Type": "multipart/form-data; boundary=edge"}
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        return self.ask("POST", f"{API}upload", pieces if chunked else body, headers)

    def uploaded(self, content: bytes, name: str = "picture.png") -> str:
        """Upload a file, and give the path that the server calls it by."""
        (path,) = json.loads(self.upload(content, name).body)
        return str(path)

    def file(self, path: str) -> Answer:
        """Ask for a file by its path on the server."""
        return self.get(f"{API}file={quote(path)}")

    def events(self) -> Iterator[dict[str, Any]]:
        """The events that the server sends to the page."""
        for line in self.get(f"{API}queue/data?session_hash={self.session}").text.splitlines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    def config(self) -> dict[str, Any]:
        """The page's components and functions."""
        return dict(json.loads(self.get("/config").body))


@dataclass(frozen=True)
class Function:
    """A function of the page: its number, and its inputs with their types and first values."""

    index: int
    kinds: tuple[str, ...]
    values: tuple[Any, ...]
    targets: tuple[str, ...]

    def with_value(self, kind: str, value: Any) -> list[Any]:
        """The inputs, of which those of one kind have another value."""
        return [value if each == kind else held for each, held in zip(self.kinds, self.values, strict=True)]


def functions(config: Mapping[str, Any]) -> list[Function]:
    """All functions that the page may ask for."""
    components = {each["id"]: each for each in config["components"]}
    found = []
    for each in config["dependencies"]:
        if not each["backend_fn"]:  # it runs in the browser alone
            continue
        inputs = [components[index] for index in each["inputs"]]
        found.append(
            Function(
                each["id"],
                tuple(component["type"] for component in inputs),
                tuple(
                    None if component["type"] == "state" else component["props"].get("value") for component in inputs
                ),
                tuple(str(event) for _, event in each["targets"]),
            )
        )
    return found
