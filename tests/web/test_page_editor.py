"""The mask editor and the borders of outpainting, as someone sees and uses them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, expect

from tests.web.conftest import SEEN, Visitor, box_of

MODEL = "storybook-sdxl"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}
LOOKS = [
    pytest.param(width, scheme, marks=() if (width, scheme) == (1366, "light") else pytest.mark.long)
    for width in (390, 1366, 1920)
    for scheme in ("light", "dark")
]
# Quarters of a picture, one of them of the colour of the mask's tint.
COLOURS: Mapping[tuple[int, int], str | tuple[int, ...]] = {
    (0, 0): "white",
    (1, 0): "black",
    (0, 1): (214, 40, 110),
    (1, 1): (128, 128, 128),
}

_ALPHA = """(canvas, [x, y]) => canvas.getContext("2d").getImageData(
  Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data[3]"""


class Editor:
    """Someone who uses the mask editor."""

    def __init__(self, visitor: Visitor, file: Path) -> None:
        """Choose the model, and give it the init image in ``file``."""
        self.visitor, self.page = visitor, visitor.page
        visitor.chooses(MODEL)
        self.page.get_by_role("button", name="Init image").click()
        self.page.locator("#init-image input[type=file]").set_input_files(file)
        expect(self.canvas).to_be_visible()
        self.page.wait_for_function("document.querySelector('.mask-editor img').naturalWidth > 1")
        self.canvas.scroll_into_view_if_needed()
        self.page.wait_for_timeout(300)

    @property
    def canvas(self) -> Locator:
        return self.page.locator(".mask-editor canvas")

    @property
    def picture(self) -> Locator:
        return self.page.locator(".mask-editor img")

    @property
    def brush(self) -> Locator:
        return self.page.locator(".mask-editor .brush")

    def button(self, name: str) -> Locator:
        return self.page.locator(".mask-editor").get_by_role("button", name=name, exact=True)

    def box(self, there: Locator | None = None) -> dict[str, float]:
        return box_of(there or self.canvas)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where shares of the canvas are on the page."""
        box = self.box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def strokes(self, *points: tuple[float, float]) -> None:
        """A stroke through shares of the canvas."""
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=5)
        self.page.mouse.up()
        self.settles()

    def settles(self) -> None:
        """Wait until what was done is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def painted(self, x: float, y: float) -> bool:
        """Whether the mask is seen at shares of the canvas."""
        return bool(self.canvas.evaluate(_ALPHA, [x, y]) > 50)

    def seen(self, name: str) -> np.ndarray:
        """The pixels of the canvas with the picture under it."""
        SEEN.mkdir(exist_ok=True)
        file = SEEN / f"{self.visitor.name}-{name}.png"
        self.page.locator(".mask-editor .frame").screenshot(path=file)
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB"), np.int16)


@pytest.fixture(scope="module")
def quarters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    picture = Image.new("RGB", (256, 256))
    for (x, y), colour in COLOURS.items():
        picture.paste(colour, (128 * x, 128 * y, 128 * x + 128, 128 * y + 128))
    file = tmp_path_factory.mktemp("init") / "quarters.png"
    picture.save(file)
    return file


@pytest.fixture(scope="module")
def opened(browser: Browser, server: str, quarters: Path) -> Iterator[Editor]:
    """One page for the tests that leave it as they found it."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    visitor = Visitor(context, server, "editor")
    yield Editor(visitor, quarters)
    context.close()
    assert not visitor.failed


@pytest.fixture
def editor(opened: Editor, request: pytest.FixtureRequest) -> Iterator[Editor]:
    """The editor with an empty mask, no borders, the brush, and the whole picture in view."""
    opened.visitor.name = request.node.name
    yield opened
    opened.page.get_by_label("Extend left").fill("0")
    for name in ("Clear", "Brush", "Fit"):
        opened.button(name).click()
    opened.page.get_by_label("Brush size").fill("10")
    opened.page.mouse.move(0, 0)
    opened.settles()


@pytest.fixture
def on_phone(visitors: Callable[..., Visitor], quarters: Path) -> Editor:
    return Editor(visitors(**PHONE), quarters)


def test_any_picture_shows_the_mask(editor: Editor) -> None:
    editor.page.mouse.move(0, 0)
    before = editor.seen("before")
    editor.strokes((0.05, 0.25), (0.95, 0.25))
    editor.strokes((0.05, 0.75), (0.95, 0.75))
    editor.page.mouse.move(0, 0)
    editor.settles()
    change = np.abs(editor.seen("after") - before).mean(axis=2)
    height, width = change.shape
    for x, y in COLOURS:
        middle = [
            slice(int((each * 0.5 + 0.24) * side), int((each * 0.5 + 0.26) * side))
            for each, side in ((y, height), (x, width))
        ]
        assert change[middle[0], int((x * 0.5 + 0.1) * width) : int((x * 0.5 + 0.4) * width)].max() > 60, COLOURS[x, y]
        edge = change[int((y * 0.5 + 0.15) * height) : int((y * 0.5 + 0.24) * height), int((x * 0.5 + 0.25) * width)]
        assert edge.max() > 60, COLOURS[x, y]
    assert change[int(0.02 * height) : int(0.1 * height)].max() == 0


def test_tools_and_keys(editor: Editor) -> None:
    page = editor.page
    one, two, three = (0.2, 0.2), (0.8, 0.2), (0.5, 0.8)
    editor.strokes(one, (0.3, 0.2))
    editor.strokes(two, (0.7, 0.2))
    assert editor.painted(*one)
    assert editor.painted(*two)
    expect(editor.button("Redo")).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("Control+z")
    editor.settles()
    expect(editor.button("Redo")).to_have_attribute("aria-disabled", "false")
    assert editor.painted(*one)
    assert not editor.painted(*two)
    page.keyboard.press("Control+Shift+Z")
    editor.settles()
    assert editor.painted(*two)
    editor.button("Eraser").click()
    expect(editor.button("Eraser")).to_have_attribute("aria-pressed", "true")
    expect(editor.button("Brush")).to_have_attribute("aria-pressed", "false")
    editor.strokes(one, (0.3, 0.2))
    assert not editor.painted(*one)
    editor.button("Undo").click()
    editor.settles()
    assert editor.painted(*one)
    editor.button("Clear").click()
    editor.settles()
    assert not editor.painted(*one)
    assert not editor.painted(*two)
    editor.button("Undo").click()
    editor.button("Invert").click()
    editor.settles()
    assert editor.painted(*three)
    assert not editor.painted(*one)
    editor.button("Undo").click()
    editor.button("Redo").click()
    editor.settles()
    assert editor.painted(*three)
    page.keyboard.press("b")
    expect(editor.button("Brush")).to_have_attribute("aria-pressed", "true")


def test_keys_belong_to_who_has_the_focus(editor: Editor) -> None:
    page = editor.page
    editor.strokes((0.2, 0.2), (0.3, 0.2))
    page.locator("#prompt textarea").press_sequentially("be[]")
    page.keyboard.press("Control+z")
    editor.settles()
    assert editor.painted(0.2, 0.2)
    expect(page.locator(".mask-editor output")).to_have_text("10%")
    page.locator(".mask-editor .frame").focus()
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    editor.settles()
    expect(editor.brush).to_be_visible()
    assert editor.painted(0.5, 0.6)


def test_the_brush_is_as_large_as_its_stroke(editor: Editor) -> None:
    page = editor.page
    page.mouse.move(*editor.at(0.5, 0.5))
    width = editor.box()["width"]
    expect(editor.brush).to_be_visible()
    assert editor.box(editor.brush)["width"] == pytest.approx(0.1 * width, abs=1)
    for _ in range(10):
        page.keyboard.press("]")
    expect(page.locator(".mask-editor output")).to_have_text("20%")
    ring = editor.box(editor.brush)
    assert ring["width"] == pytest.approx(0.2 * width, abs=1)
    assert ring["x"] + ring["width"] / 2 == pytest.approx(editor.at(0.5, 0.5)[0], abs=1)
    page.keyboard.press("[")
    expect(page.get_by_label("Brush size")).to_have_value("19")
    page.keyboard.press("]")
    editor.strokes((0.5, 0.5), (0.5, 0.5))
    assert editor.painted(0.5, 0.5 - 0.09)
    assert editor.painted(0.5 + 0.09, 0.5)
    assert not editor.painted(0.5, 0.5 - 0.12)
    page.mouse.move(0, 0)
    expect(editor.brush).to_be_hidden()


def test_zoom_and_pan(editor: Editor) -> None:
    page = editor.page
    fitted = editor.box(editor.picture)
    page.mouse.move(*editor.at(0.25, 0.25))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -500)
    page.keyboard.up("Control")
    editor.settles()
    zoomed = editor.box(editor.picture)
    assert zoomed["width"] > 1.5 * fitted["width"]
    x, _ = editor.at(0.25, 0.25)
    assert (x - zoomed["x"]) / zoomed["width"] == pytest.approx(0.25, abs=0.01)
    editor.strokes((0.25, 0.25), (0.26, 0.25))
    editor.button("Move").click()
    editor.strokes((0.5, 0.5), (0.4, 0.4))
    moved = editor.box(editor.picture)
    assert moved["x"] == pytest.approx(zoomed["x"] - 0.1 * fitted["width"], abs=2)
    assert moved["width"] == pytest.approx(zoomed["width"], abs=1)
    editor.button("Fit").click()
    editor.settles()
    assert editor.box(editor.picture) == pytest.approx(fitted, abs=1)
    assert editor.painted(0.25, 0.25)
    assert not editor.painted(0.4, 0.4)
    editor.button("Zoom in").click()
    editor.settles()
    assert editor.box(editor.picture)["width"] > 1.3 * fitted["width"]


def test_fingers_and_the_full_screen_of_a_phone(on_phone: Editor) -> None:
    page = on_phone.page
    on_phone.button("Full screen").tap()
    on_phone.settles()
    box, width, height = on_phone.box(), 390, 844
    tools = on_phone.box(page.locator(".mask-editor .tools"))
    assert (box["x"], box["y"], box["width"]) == (0, 0, width)
    assert box["height"] + tools["height"] == pytest.approx(height, abs=1)
    assert box["height"] > 0.75 * height
    for name in ("Brush", "Undo", "Zoom in", "Done"):
        button = on_phone.box(on_phone.button(name))
        assert min(button["width"], button["height"]) >= 44
        assert button["y"] > 0.75 * height
        assert button["x"] + button["width"] <= width
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        there = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": there})

    middle = box["height"] / 2
    fingers("touchStart", (100, middle))
    fingers("touchMove", (150, middle))
    fingers("touchMove", (200, middle))
    fingers("touchEnd")
    on_phone.settles()
    assert on_phone.painted(150 / width, 0.5)
    before = on_phone.box(on_phone.picture)
    fingers("touchStart", (150, middle + 60))
    fingers("touchStart", (150, middle + 60), (250, middle + 60))
    fingers("touchMove", (120, middle + 60), (280, middle + 60))
    fingers("touchMove", (100, middle + 60), (300, middle + 60))
    fingers("touchEnd")
    on_phone.settles()
    after = on_phone.box(on_phone.picture)
    assert after["width"] == pytest.approx(2 * before["width"], rel=0.05)
    on_phone.visitor.sees("full")
    on_phone.button("Fit").tap()
    on_phone.settles()
    assert on_phone.painted(150 / width, 0.5)
    assert not on_phone.painted(150 / width, 0.5 + 60 / box["height"])  # where two fingers were
    on_phone.button("Done").tap()
    expect(on_phone.button("Done")).to_be_hidden()
    on_phone.settles()
    assert on_phone.painted(150 / width, 0.5)
    on_phone.visitor.fits(width)


def test_another_model_and_back(editor: Editor) -> None:
    editor.strokes((0.2, 0.2), (0.3, 0.2))
    editor.visitor.chooses("storybook-wuerstchen")
    expect(editor.canvas).to_be_hidden()
    there = editor.page.locator(".inputs").first
    there.get_by_label("Model").click()
    there.get_by_role("option", name=MODEL, exact=True).click()
    expect(editor.canvas).to_be_visible()
    editor.settles()
    assert editor.painted(0.2, 0.2)
    assert editor.box(editor.picture)["width"] == editor.box()["width"]
    expect(editor.picture).to_have_js_property("naturalWidth", 256)


def test_escape_leaves_the_full_screen(editor: Editor) -> None:
    page = editor.page
    editor.strokes((0.2, 0.2), (0.3, 0.2))
    inline = editor.box()
    editor.button("Full screen").click()
    editor.settles()
    assert editor.box()["width"] == 1366
    expect(editor.button("Done")).to_be_visible()
    editor.visitor.sees("full")
    page.keyboard.press("Escape")
    expect(editor.button("Done")).to_be_hidden()
    expect(editor.button("Full screen")).to_be_focused()
    editor.settles()
    assert editor.box()["width"] == inline["width"]
    assert editor.painted(0.2, 0.2)


def test_borders_are_drawn_around_the_picture(editor: Editor, tmp_path: Path) -> None:
    page, visitor = editor.page, editor.visitor
    page.get_by_label("Extend left").fill("60")
    page.get_by_label("Extend left").press("Tab")
    visitor.reads("#extend-note", "Extend is [60, 0, 0, 0]; this model draws multiples of 8, the nearest: 64,0,0,0")
    assert not editor.painted(0.05, 0.5)
    page.get_by_label("Extend left").fill("64")
    page.get_by_label("Extend left").press("Tab")
    visitor.reads("#extend-note", "With these, the image is 320×256.")
    editor.settles()
    box, picture = editor.box(), editor.box(editor.picture)
    assert box["width"] / box["height"] == pytest.approx(320 / 256, abs=0.02)
    assert picture["x"] - box["x"] == pytest.approx(0.2 * box["width"], abs=1)
    assert editor.painted(0.1, 0.5)
    assert not editor.painted(0.3, 0.5)
    visitor.sees("borders", whole=True)
    visitor.draws("a red house")
    expect(page.locator("#output .facts")).to_contain_text("320×256")
    expect(page.locator("#output .links")).not_to_contain_text("mask.png")
    drawn = visitor.saves("Download PNG", tmp_path, "drawn.png")
    init = visitor.saves("init.png", tmp_path, "init.png")
    with Image.open(drawn) as result, Image.open(init) as start:
        pixels, kept = np.asarray(result.convert("RGB")), np.asarray(start.convert("RGB"))
    assert (pixels[:, 64 + 32 :] == kept[:, 32:]).all()
    assert pixels[:, :64].std() > 5
    script, command = (visitor.snippet(each).input_value() for each in ("python", "shell"))
    assert "--extend 64,0,0,0" in command
    for arguments in (["-c", script], ["-m", *shlex.split(command)]):
        (tmp_path / "picture.png").unlink(missing_ok=True)
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, capture_output=True)
        with Image.open(tmp_path / "picture.png") as again:
            assert (np.asarray(again.convert("RGB")) == pixels).all()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_looks(visitors: Callable[..., Visitor], quarters: Path, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    settings: dict[str, Any] = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    editor = Editor(visitors(**settings), quarters)
    editor.strokes((0.1, 0.5), (0.9, 0.5))
    editor.page.get_by_label("Extend right").fill("64")
    editor.page.get_by_label("Extend right").press("Tab")
    editor.visitor.reads("#extend-note", "320×256")
    editor.page.wait_for_timeout(500)  # until what fades in has its own colours
    editor.visitor.sees("inline", whole=True)
    found = Axe().run(editor.page)
    assert found.violations_count == 0, found.generate_report()
    editor.visitor.fits(width)
    editor.button("Full screen").click()
    editor.settles()
    editor.visitor.sees("full")
    found = Axe().run(editor.page)
    assert found.violations_count == 0, found.generate_report()
