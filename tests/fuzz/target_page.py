"""Raw requests to the page on a local server: calls of its functions, uploads, anything."""

from __future__ import annotations

import atexit
import http.client
import json
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from scripts import browser
from tests.fuzz import Attempt, Target
from tests.web.posts import API, Answer, Client, Function, functions

_SECRET = b"\x89PNG this is nobody's business"
_SECONDS = 20  # generous, for a busy machine
_WORDS = (
    "",
    "a red house",
    "\0",
    "é",
    "\ud800",
    "x" * 30_000,
    "256x256",
    "init image",
    "custom",
    "full",
    "-1",
    "7",
)
_NUMBERS = (0, -1, 1, 2, 0.5, 1e300, -1e300, 2**63, 10**19, 10**30, 300, True, None)
_PATHS = (
    "/etc/passwd",
    "",
    "\0",
    "http://127.0.0.1:9/",
    "../" * 40 + "etc/passwd",
    "x" * 5000,
    "/proc/self/environ",
    3,
)
_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "X")
_PLACES = (
    *("", "queue/join", "queue/data", "run/predict", "upload", "upload_progress", "heartbeat/x", "cancel", "reset"),
    *("info", "file=/etc/passwd", "file=", "file=%00", "proxy=http://127.0.0.1:9/", "component_server", "vibe-edit"),
    *("../config", "stream/x", "call/x", "api/x", "startup-events", "app_id", "%ff", "queue/join/", "login"),
)
_HOSTS = ("evil.example", "", "127.0.0.1:x", "[", "a@b", "localhost", "\x7f")
_HEADERS = ("Cookie", "Origin", "Range", "Content-Type", "Accept-Encoding", "X-Forwarded-Host", "If-Range", "Expect")
_DEEPEST = 3
_MASKS = ("data:image/png;base64,", "data:image/png;base64,iVBORw0KGgo=", "data:,x", "x,%%%")


class _Page:
    """A running server, and the functions that its page can call."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "log"
        stack = ExitStack()
        self.address = stack.enter_context(browser.served(["--model", "storybook-sdxl"], folder / "models", self._log))
        atexit.register(stack.close)
        self.functions = functions(Client(self.address).config())
        self._client = Client(self.address)

    def attempt(self, random: Random, folder: Path) -> None:
        """Post something, and check that nothing broke and no secret was returned."""
        (folder / "secret.png").write_bytes(_SECRET)
        secret = str(folder / "secret.png")
        log_start = self._log.stat().st_size
        client = self._client if random.random() < 0.7 else Client(self.address)
        post = random.choice((self._call, self._call, self._call, self._upload, self._raw, self._garbled))
        answer = post(client, random, secret)
        if answer is not None:
            wrong = answer.status >= 500 and not (b'"error"' in answer.body and answer.status == 500)
            assert not wrong, f"{answer.status}: {answer.text[:500]}"
            assert _SECRET not in answer.body
            assert b"Traceback" not in answer.body
        start = time.monotonic()
        assert Client(self.address).get("/").status == 200
        assert time.monotonic() - start < _SECONDS
        with self._log.open("rb") as log:
            log.seek(log_start)
            printed = log.read()
        # Gradio prints a traceback when it refuses a slider's value whose range has changed.
        defects = [each for each in printed.split(b"Traceback")[1:] if b"\ngradio.exceptions.Error: " not in each]
        assert not defects, defects[0][-3000:].decode("utf-8", "replace")
        assert b"CALLED" not in printed, printed[-3000:].decode("utf-8", "replace")

    def _call(self, client: Client, random: Random, secret: str) -> Answer:
        function = random.choice(self.functions)
        data: Any = [*function.values]
        for place in range(len(data)):
            if function.kinds[place] == "image" and random.random() < 0.3:
                data[place] = {"path": client.uploaded(random.randbytes(40))}
            if random.random() < 0.25:
                data[place] = _value(random, secret)
        if random.random() < 0.1:
            data = random.choice((data[:-1], [*data, None], None, "x", {}))
        event = random.choice((None, None, {"chosen": _value(random, secret)}, {"x": 1}, "chosen", [1]))
        route = random.choice(("queue/join", "run/predict"))
        session = random.choice((client.session, client.session, "x", None, 3, "a" * 65, "../x"))
        call = {"fn_index": function.index, "data": data, "session_hash": session, "event_data": event}
        if random.random() < 0.1:
            call["fn_index"] = _value(random, secret)
        if random.random() < 0.2:
            call["trigger_id"] = _value(random, secret)
        answer = client.post(route, call)
        if secret in json.dumps([data, event]):
            assert answer.status == 400, answer.text[:500]
        if answer.status == 200 and route == "queue/join" and session == client.session and not _draws(function):
            said = json.dumps(list(client.events()))
            assert _SECRET.decode("latin-1") not in said
        return answer

    def _upload(self, client: Client, random: Random, secret: str) -> Answer:
        name = random.choice(("x.png", secret, "..", "a\r\nb", 'a"b', "é", "x" * 9000, ""))
        if random.random() < 0.5:
            return client.upload(random.randbytes(random.randrange(3000)), name, chunked=random.random() < 0.5)
        parts = [
            b"--edge",
            b"\r\n",
            b"--edge--",
            b"Content-Disposition: form-data",
            b'; name="files"',
            b": ",
            b"\r\n\r\n",
        ]
        parts += [b'; filename="x.png"', b"Content-Type: x", random.randbytes(20), b"A" * 9000, b"\r", b"--"]
        body = b"".join(random.choices(parts, k=random.randrange(30)))
        kind = random.choice(
            ("multipart/form-data; boundary=edge", "multipart/form-data", "multipart/form-data; boundary=")
        )
        kind += random.choice(("", "; charset=x", "; charset=utf-16"))
        return client.ask("POST", f"{API}upload", body, {"Content-Type": kind})

    def _raw(self, client: Client, random: Random, secret: str) -> Answer | None:
        path = API + random.choice((*_PLACES, f"file={secret}")) + random.choice(("", "?x=1", "?session_hash=x", "/"))
        if "heartbeat/" in path and "/x?" not in path and path.endswith("x"):
            return None  # this stream lasts as long as the page is open
        headers = {
            random.choice(_HEADERS): random.choice(_WORDS[:4] + _HOSTS + ("bytes=1-2-3", "null", "a=b; c"))
            for _ in "ab"
        }
        if random.random() < 0.2:
            headers["Host"] = random.choice(_HOSTS)
        body = random.choice((b"", b"{}", b"[" * 5000, random.randbytes(50), b"x" * 1_500_000))
        headers = {
            name: value.encode("utf-8", "replace").decode("latin-1").replace("\0", "")
            for name, value in headers.items()
        }
        if headers.get("Expect") is not None:
            headers["Expect"] = "100-continue"
        method = random.choice(_METHODS)
        if "heartbeat/" in path and method in ("GET", "HEAD"):
            method = "PUT"
        try:
            return client.ask(method, path.replace("\0", ""), body, headers)
        except (ConnectionError, http.client.HTTPException, ValueError):
            return None  # server or client doesn't accept it as HTTP

    def _garbled(self, client: Client, random: Random, secret: str) -> Answer:
        """Post a valid call with some bytes changed."""
        function = random.choice(self.functions)
        call = {"fn_index": function.index, "data": [*function.values], "session_hash": client.session}
        body = bytearray(json.dumps(call).encode())
        for _ in range(random.randrange(1, 6)):
            body[random.randrange(len(body))] = random.randrange(256)
        return client.ask("POST", f"{API}queue/join", bytes(body), {"Content-Type": "application/json"})


def _draws(function: Function) -> bool:
    """Whether the function generates pictures: then its result isn't awaited."""
    return "click" in function.targets and len(function.kinds) > 4


def _value(random: Random, secret: str, deep: int = 0) -> Any:
    kinds: list[Any] = [random.choice(_WORDS), random.choice(_NUMBERS), random.choice(_MASKS), {"path": secret}]
    kinds += [{"path": random.choice(_PATHS), "meta": {"_type": "gradio.FileData"}}, {"url": "http://127.0.0.1:9/"}]
    if deep < _DEEPEST:
        kinds += [[_value(random, secret, deep + 1)], {"layers": [_value(random, secret, deep + 1)], "x": None}]
    return random.choice(kinds)


def _prepare(folder: Path) -> Attempt:
    return _Page(folder).attempt


TARGETS = [Target("page", _prepare, attempts=60)]
