"""Servers for tests: the real one in a process of its own, and the application around a service that answers at once."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vinograph.serve.application import application
from vinograph.serve.configuration import Configuration, ServedModel
from vinograph.serve.contract import AdapterInfo, Drawing, Drawn, Event, ModelInfo, Picture, UnknownModelError
from vinograph.serve.metrics import Metrics
from vinograph.serve.server import Server, settings

ROOT = Path(__file__).parents[2]
MODEL = "storybook-sdxl"
THROUGH_RAY = os.environ.get("TEST_RAY") == "1"
"""Whether servers draw through Ray: ``TEST_RAY=1 pytest -m "long or not long" tests/serve``."""
RAY = ("--ray", "local") if THROUGH_RAY else ()
SECONDS = 300.0  # of patience
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def ask(
    address: str,
    path: str,
    body: Mapping[str, Any] | bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] = {},
    method: str | None = None,
) -> Answer:
    """Send one request over a connection of its own. A mapping is sent as JSON, pieces as chunks."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=SECONDS)
    if isinstance(body, Mapping):
        body, headers = json.dumps(body).encode(), {**JSON, **headers}
    began = time.perf_counter()
    try:
        chunked = not isinstance(body, bytes | None)
        connection.request(
            method or ("GET" if body is None else "POST"), path, body, dict(headers), encode_chunked=chunked
        )
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return Answer(response.status, response.headers, content, time.perf_counter() - began)


@dataclass
class Running:
    """A ``vinograph serve`` in a process of its own."""

    process: subprocess.Popen[str]
    address: str = ""
    lines: list[str] = field(default_factory=list)

    def ask(self, path: str, *arguments: Any, **options: Any) -> Answer:
        """Send one request."""
        return ask(self.address, path, *arguments, **options)

    def listen(self) -> None:
        """Read what it prints, and wait until it says its address."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"listens at (http://\S+);", line):
                self.address = found[1]
                break
        threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()), daemon=True).start()
        assert self.address, "".join(self.lines)

    def wait_until_ready(self) -> None:
        """Wait until it draws."""
        until(lambda: self.ask("/readyz").status == 200)

    @property
    def log(self) -> str:
        """All that it has printed."""
        return "".join(self.lines)

    def stop(self) -> None:
        """End it, whatever it does."""
        try:
            for _ in range(2):
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(2)
                    return
            self.process.wait(20)
        finally:
            self.process.kill()


def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until the condition holds."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "it didn't happen in time"
        time.sleep(0.02)


@contextmanager
def running(*options: str, ready: bool = True, environment: Mapping[str, str] = {}) -> Iterator[Running]:
    """``vinograph serve`` with these options, at a free port."""
    command = [sys.executable, "-m", "vinograph", "serve", "--port", "0", *RAY, *options]
    given = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=given) as process:
        server = Running(process)
        try:
            server.listen()
            if ready:
                server.wait_until_ready()
            yield server
        finally:
            if process.poll() is None:
                server.stop()


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


@dataclass
class QuickJob:
    """A job that is done at once, unless ``error`` is raised in its place."""

    drawing: Drawing
    error: Exception | None = None
    id: str = "job"
    latest_preview: bytes | None = None

    @property
    def latest(self) -> Event:
        """The end."""
        count = min(max(1, self.drawing.arguments.get("num_images_per_prompt") or 1), 10)  # it is not checked
        pictures = tuple(Picture(PNG, 7 + index, 1, 1, "a house\nSteps: 1, Seed: 7") for index in range(count))
        return Drawn(pictures, MODEL, {"seed": 7}, {"unet": 0.1}, (), {}, 0.0)

    async def events(self) -> AsyncIterator[Event]:
        """The end, and nothing before it."""
        yield await self.result()

    async def result(self) -> Drawn:
        """The end."""
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        assert isinstance(self.latest, Drawn)
        return self.latest

    def cancel(self) -> None:
        """Nothing is left to do."""

    def interrupt(self) -> None:
        """Nothing is left to do."""


@dataclass
class QuickService:
    """A service that draws a pixel at once. ``errors`` are raised instead, by ``submit`` or by the job."""

    info: ModelInfo
    refuse: Exception | None = None
    fail: Exception | None = None
    submitted: list[Drawing] = field(default_factory=list)
    running: Any = None
    waiting: Sequence[Any] = ()
    ready: bool = True
    under_way_count: int = 0
    worker_memory: int = 0

    async def submit(self, drawing: Drawing) -> QuickJob:
        """Take any drawing."""
        if self.refuse is not None:
            raise self.refuse
        self.submitted.append(drawing)
        return QuickJob(drawing, self.fail)

    async def find(self, name: str) -> ModelInfo:
        """The only model."""
        if name == "unknown":
            raise UnknownModelError(f"there is no model unknown; there is {MODEL}")
        return self.info

    async def models(self) -> Sequence[ModelInfo]:
        """The only model."""
        return (self.info,)

    async def adapters(self) -> Sequence[AdapterInfo]:
        """None."""
        return ()


def configured(**values: Any) -> Configuration:
    """A configuration of one model."""
    return Configuration((ServedModel(MODEL, MODEL),), **values)


@contextmanager
def serving(service: Any, configuration: Configuration, page: Any = None) -> Iterator[str]:
    """The address of the whole application around ``service``, in a thread of this process."""
    config = settings(application(service, configuration, Metrics(), page))
    config.port = 0
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
