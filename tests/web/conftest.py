"""The page as its user has it: a server in a process of its own, and headless Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from vinograph import Pipeline, catalog

ROOT = Path(__file__).parents[2]
SEEN = Path(__file__).parent / "seen"
PATIENCE = 60_000  # milliseconds; a machine that trains something else is slow

expect.set_options(timeout=PATIENCE)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

# The page works with the network unplugged: the server may listen and answer here, and call nobody.
_UNPLUGGED = """
import socket
_connect = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print(f"CALLED {address}", flush=True)
        raise OSError("the network is unplugged")
    return _connect(self, address)
socket.socket.connect = connect
from vinograph.cli import main
raise SystemExit(main())
"""


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextmanager
def served(*arguments: str, models: Path) -> Iterator[str]:
    """The address of ``vinograph web`` with these arguments, until the block ends. It must have called nobody."""
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "VINOGRAPH_MODELS": str(models),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-c", _UNPLUGGED, "web", "--port", str(port), *arguments]
    log = models.parent / f"server-{port}.log"
    with log.open("w") as printed:
        process = subprocess.Popen(command, env=environment, stdout=printed, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}/"
            _wait_for(address, process, log)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    told = log.read_text()
    assert "CALLED" not in told, told
    assert "Traceback" not in told, told


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        if process.poll() is not None:
            pytest.fail(f"vinograph web ended with {process.returncode}: {log.read_text()}")
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:
            time.sleep(0.2)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with the embedded models, and in the models folder a copy of one."""
    models = tmp_path_factory.mktemp("web") / "models"
    first = catalog.embedded()[0]
    shutil.copytree(first, models / f"{first.name}-copy")
    with served(models=models) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium that finds no host but this one."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.fail(f"the page's tests need a browser ({', '.join(BROWSERS)}): apt-get install chromium")
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


class Visitor:
    """Someone who has the page open."""

    def __init__(self, context: BrowserContext, address: str, name: str) -> None:
        """Open it. Pictures of what is ``seen`` are kept under that name."""
        self.name = name
        self.address = address
        self.asked: list[str] = []
        self.failed: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.failed.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_function("document.querySelector('.settings [aria-label=Shape]')?.value")

    def sees(self, what: str, *, whole: bool = False) -> None:
        """Keep a picture of the page, for eyes."""
        SEEN.mkdir(exist_ok=True)
        self.page.screenshot(path=SEEN / f"{self.name}-{what}.png", full_page=whole)

    def chooses(self, model: str) -> None:
        """Choose a model on the first tab, and let the controls follow."""
        self.page.get_by_label("Model").first.click()
        self.page.get_by_role("option", name=model, exact=True).click()
        pipe = Pipeline.from_pretrained(model)
        expect(self.number("Steps")).to_have_value(str(pipe.calls["generate"].takes[pipe.options["steps"]]))

    def number(self, label: str) -> Locator:
        """The field beside a slider of the first tab."""
        return self.page.locator(".settings").first.get_by_label(f"number input for {label}", exact=True)

    def sets(self, label: str, value: float) -> None:
        """Type a number beside a slider of the first tab."""
        self.number(label).fill(str(value))
        self.number(label).press("Tab")

    def text(self, label: str) -> Locator:
        """A text field of the first tab's settings."""
        return self.page.locator(".settings").first.get_by_label(label, exact=True)

    def asks_for_size(self, width: int, height: int) -> None:
        """Choose another size than those with a name."""
        self.text("Shape").click()
        self.page.get_by_role("option", name="Another size").click()
        for label, side in (("Width", width), ("Height", height)):
            self.text(label).fill(str(side))
            self.text(label).press("Tab")

    def presses_draw(self, prompt: str | None = None) -> None:
        """Ask for a picture."""
        if prompt is not None:
            self.page.fill("#prompt textarea", prompt)
        self.page.click("#draw")

    def draws(self, prompt: str | None = None) -> None:
        """Ask for a picture, and wait until it is there."""
        before = self.picture.get_attribute("src") if self.picture.count() else None
        self.presses_draw(prompt)
        self.page.wait_for_function(
            "(before) => { const it = document.querySelector('#easel img');"
            " return it && it.src.includes('gradio_api') && !it.src.endsWith(before ?? '-'); }",
            arg=before,
        )
        self.page.wait_for_selector("#draw:visible")

    @property
    def picture(self) -> Locator:
        """What stands on the easel."""
        return self.page.locator("#easel img")

    def snippet(self, language: str) -> Locator:
        """The lines that draw the picture again."""
        there = self.page.locator(f"#{language} textarea")
        if not there.is_visible():
            self.page.get_by_role("button", name="Draw it again").click()
        return there

    def saves(self, link: str, folder: Path, name: str) -> Path:
        """Press a link that saves a file."""
        with self.page.expect_download() as download:
            self.page.locator("#easel").get_by_role("link", name=link).click()
        download.value.save_as(folder / name)
        return folder / name


@pytest.fixture
def visitors(browser: Browser, server: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Visitor]]:
    """Open the page once more. Nobody's browser may ask anyone but the server, or meet an error in a script."""
    opened: list[tuple[BrowserContext, Visitor]] = []

    def visit(address: str = server, **settings: object) -> Visitor:
        context = browser.new_context(**{"viewport": {"width": 1366, "height": 768}, **settings})  # type: ignore[arg-type]
        visitor = Visitor(context, address, re.sub(r"\W+", "-", request.node.name).strip("-"))
        opened.append((context, visitor))
        return visitor

    yield visit
    for context, visitor in opened:
        context.close()
        elsewhere = [url for url in visitor.asked if not url.startswith((visitor.address, "data:", "blob:"))]
        assert not elsewhere
        assert not visitor.failed


@pytest.fixture
def visitor(visitors: Callable[..., Visitor]) -> Visitor:
    """One who has the page open."""
    return visitors()
