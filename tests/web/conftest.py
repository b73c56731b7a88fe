"""The page as its user has it: a server in a process of its own, and headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from scripts import browser as browser_tools
from tests.processors import all_processors
from vinograph.models import catalog

ROOT = Path(__file__).parents[2]
SEEN = Path(__file__).parent / "seen"
_PAUSE = 1.0  # second after each step of a long drawing: two minutes, though a busy browser lags behind
PATIENCE = 300_000  # milliseconds; a machine that trains something else is slow

# Whether all pictures of the output are of the server's, and can be seen; a preview is neither.
_DRAWN = """(before) => {
  const all = [...document.querySelectorAll("#output img")];
  return all.length && all.every((it) => it.src.includes("gradio_api") && it.complete && it.naturalWidth > 1)
    && all[0].getAttribute("src") !== before;
}"""

expect.set_options(timeout=PATIENCE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A server and a browser work at the same time, and some tests look how long that takes."""
    with all_processors() if item.path.is_relative_to(Path(__file__).parent) else nullcontext():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test in a browser gets a second try, which the summary lists: it ought to need none."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.flaky(reruns=1))


@contextmanager
def served(*arguments: str, models: Path) -> Iterator[str]:
    """The address of ``vinograph web`` with these arguments, which must call no other host."""
    log = models.parent / "log"
    with browser_tools.served(arguments, models, log, pause=_PAUSE) as address:
        yield address
    log_text = log.read_text(encoding="utf-8")
    assert "CALLED" not in log_text, log_text
    assert "Traceback" not in log_text, log_text


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with the embedded models, and in the models folder a copy of one."""
    models = tmp_path_factory.mktemp("web") / "models"
    first = catalog.embedded()[0]
    shutil.copytree(first, models / f"{first.name}-copy")
    with served(models=models) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium that finds no host but this one.

    While it is open, Playwright's event loop runs in this thread, and a test of another folder that
    runs one of its own would fail. So it is closed after each module.
    """
    if browser_tools.find() is None:
        pytest.fail(browser_tools.MISSING)
    with browser_tools.launched() as browser:
        yield browser


def box_of(there: Locator) -> dict[str, float]:
    """Where something is on the page, in pixels, once it moves no more."""
    there.element_handle().wait_for_element_state("stable")
    box = there.bounding_box()
    assert box is not None
    return {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}


class Visitor:
    """Someone who has the page open."""

    def __init__(self, context: BrowserContext, address: str, name: str) -> None:
        """Open the page; screenshots are kept under that name."""
        self.name = name
        self.address = address
        self.asked: list[str] = []
        self.failed: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.failed.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("body[data-settled]")

    def sees(self, what: str, *, whole: bool = False) -> None:
        """Keep a picture of the page, for eyes."""
        SEEN.mkdir(exist_ok=True)
        self.page.screenshot(path=SEEN / f"{self.name}-{what}.png", full_page=whole)

    def chooses(self, model: str) -> None:
        """Choose a model on the first tab, and let the controls follow."""
        there = self.page.locator(".inputs").first
        if there.get_by_label("Model").input_value() == model:
            return
        there.get_by_label("Model").click()
        there.get_by_role("option", name=model, exact=True).click()
        self.page.wait_for_selector(f"body[data-settled='{model}']")

    def number(self, label: str) -> Locator:
        """The field beside a slider of the first tab."""
        return self.page.locator(".settings").first.get_by_label(f"number input for {label}", exact=True)

    def sets(self, label: str, value: float) -> None:
        """Type a number beside a slider of the first tab."""
        self.number(label).fill(str(value))
        self.number(label).press("Tab")

    def text(self, label: str) -> Locator:
        """A text field of the first tab's settings; a line of help may follow its label."""
        named = re.compile(rf"^\s*{re.escape(label)}\s*($|[A-Z])")
        return self.page.locator(".settings").first.get_by_label(named)

    def asks_for_size(self, width: int, height: int) -> None:
        """Choose another size than those with a name."""
        self.text("Size").click()
        self.page.get_by_role("option", name="Custom size").click()
        for label, side in (("Width", width), ("Height", height)):
            self.text(label).fill(str(side))
            self.text(label).press("Tab")

    def presses_generate(self, prompt: str | None = None) -> None:
        """Ask for a picture."""
        if prompt is not None:
            self.page.fill("#prompt textarea", prompt)
        self.page.click("#generate")

    def draws(self, prompt: str | None = None) -> None:
        """Ask for a picture, and wait until it is there."""
        before = self.page.evaluate("document.querySelector('#output img')?.getAttribute('src')")
        self.presses_generate(prompt)
        self.page.wait_for_function(_DRAWN, arg=before)
        self.page.wait_for_selector("#generate:visible")

    def fits(self, width: int) -> None:
        """Expect that nothing is wider than the page."""
        self.page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")

    @property
    def picture(self) -> Locator:
        """The picture in the output."""
        return self.page.locator("#output img")

    def reads(self, place: str, words: str | re.Pattern[str]) -> Locator:
        """Expect words in a place, and that they can be read: neither hidden nor squeezed."""
        there = self.page.locator(f"{place} p")
        expect(there.first).to_contain_text(words)
        expect(there.first).to_be_visible()
        box = box_of(there.first)
        assert box["height"] >= 14
        assert box["width"] >= 100
        return there

    def snippet(self, language: str) -> Locator:
        """The snippet that draws the picture again."""
        there = self.page.locator(f"#{language} textarea")
        if not there.is_visible():
            self.page.get_by_role("button", name="Reproduce in").click()
        return there

    def saves(self, link: str, folder: Path, name: str) -> Path:
        """Press a link that saves a file."""
        with self.page.expect_download() as download:
            self.page.locator("#output").get_by_role("link", name=link).click()
        download.value.save_as(folder / name)
        return folder / name


@pytest.fixture
def visitors(browser: Browser, server: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Visitor]]:
    """Open the page once more. No browser may ask another host, or meet an error in a script."""
    opened: list[tuple[BrowserContext, Visitor]] = []

    def open_page(address: str = server, **settings: object) -> Visitor:
        context = browser.new_context(**{"viewport": {"width": 1366, "height": 768}, **settings})  # type: ignore[arg-type]
        visitor = Visitor(context, address, re.sub(r"\W+", "-", request.node.name).strip("-"))
        opened.append((context, visitor))
        return visitor

    yield open_page
    for context, visitor in opened:
        context.close()
        elsewhere = [url for url in visitor.asked if not url.startswith((visitor.address, "data:", "blob:"))]
        assert not elsewhere
        assert not visitor.failed


@pytest.fixture
def visitor(visitors: Callable[..., Visitor]) -> Visitor:
    """One who has the page open."""
    return visitors()
