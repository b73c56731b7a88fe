"""The page under attack: it needs little more memory, and answers others meanwhile."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import served
from tests.web.posts import API, Client, Function, functions
from vinograph.arguments import MAX_PROMPT
from vinograph.web.uploads import MEGABYTE, UploadLimits

_MORE = 100 * MEGABYTE
_SECONDS = 1.0
_JSON = {"Content-Type": "application/json"}
_LONG = ("a." * 24_000, ("a." * MAX_PROMPT)[:MAX_PROMPT], ("<a " * MAX_PROMPT)[:MAX_PROMPT], "1a1" + "1" * 19_000 + "é")


def process_at(address: str) -> int:
    """The process of ``vinograph web`` that serves there."""
    port = address.rstrip("/").rpartition(":")[2].encode()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"web" in words and words[words.index(b"web") : words.index(b"web") + 3] == [b"web", b"--port", port]:
            return int(place.parent.name)
    raise AssertionError(f"nobody serves at {address}")


class Memory:
    """What a process has in memory, and the most that it had."""

    def __init__(self, process: int) -> None:
        self._folder = Path("/proc") / str(process)

    def _read(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", (self._folder / "status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    def begin(self) -> int:
        """Forget the peak, and return what it has now."""
        (self._folder / "clear_refs").write_text("5")
        return self._read("VmRSS")

    def most(self) -> int:
        """The peak since then."""
        return self._read("VmHWM")


@contextmanager
def another_visitor(address: str, control: Function) -> Iterator[list[float]]:
    """How long another visitor waits for the page and for one of its controls, meanwhile."""
    waits: list[float] = []
    ended = threading.Event()

    def visit() -> None:
        client = Client(address)
        while not ended.wait(0.05):
            start = time.perf_counter()
            assert client.get("/").status == 200
            middle = time.perf_counter()
            call = {"fn_index": control.index, "data": [*control.values], "session_hash": client.session}
            assert client.post("run/predict", call).status == 200
            waits.extend((middle - start, time.perf_counter() - middle))

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()


def zeros(size: int) -> Iterator[bytes]:
    """A JSON text of so many bytes, in pieces."""
    yield b'{"data": ["'
    for _ in range(size // MEGABYTE):
        yield b"0" * MEGABYTE
    yield b'"]}'


def drawn(client: Client, add: Function, follow: Function, prompt: str) -> list[dict[str, Any]]:
    """What the server says of a drawing with that prompt: it is queued, then followed."""
    data = [*add.values]
    data[add.kinds.index("textbox")] = prompt
    assert client.join(add.index, data).status == 200
    assert all(each["success"] for each in client.events() if each["msg"] == "process_completed")
    assert client.join(follow.index, []).status == 200
    events = [each for each in client.events() if "output" in each]
    assert events[-1]["msg"] == "process_completed"
    return events


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page whose first model cleans captions."""
    with served("--model", "storybook-pixart", models=tmp_path_factory.mktemp("load") / "models") as address:
        yield address


def test_it_withstands(address: str) -> None:
    client = Client(address)
    client.get("/")
    there = functions(client.config())
    add = next(each for each in there if "click" in each.targets and {"textbox", "image", "checkbox"} <= {*each.kinds})
    follow = there[there.index(add) + 1]
    control = next(each for each in there if each.kinds == ("dropdown",) and "change" in each.targets)
    memory = Memory(process_at(address))
    assert "Seed" in json.dumps(drawn(client, add, follow, "a red house"))
    with another_visitor(address, control) as quiet:
        time.sleep(2)
    before = memory.begin()
    with another_visitor(address, control) as waits:
        for headers in ({"Content-Length": str(300 * MEGABYTE + 14)}, {"Transfer-Encoding": "chunked"}):
            answer = client.ask("POST", f"{API}queue/join", zeros(300 * MEGABYTE), {**_JSON, **headers})
            assert answer.status == 413
        for prompt in _LONG:
            assert all(each["success"] for each in drawn(client, add, follow, prompt))
        paths = [client.uploaded(bytes(12 * MEGABYTE)) for _ in range(40)]
        assert client.upload(bytes(70 * MEGABYTE), chunked=True).status == 413
    folder = Path(paths[-1]).parents[1]
    assert Path(paths[-1]).is_file()
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= UploadLimits().total
    assert memory.most() - before <= _MORE, f"{(memory.most() - before) / MEGABYTE:.0f} MB more"
    print(f"{(memory.most() - before) / MEGABYTE:.0f} MB more; others waited {max(waits):.2f} s of {len(waits)} times")
    assert max(waits) <= _SECONDS + max(quiet), f"others waited up to {max(waits):.2f} s, and before {max(quiet):.2f} s"
