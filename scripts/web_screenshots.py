"""Take the pictures of the page that docs/web.md shows: on a phone, a laptop and a wide screen.

python -m scripts.web_screenshots
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from scripts.browser import launched, served

_ROOT = Path(__file__).resolve().parent.parent
_SIZES = {"phone": (390, 844), "laptop": (1366, 768), "wide": (1920, 1080)}
_PATIENCE = 300_000  # milliseconds
_SEEDS = (7, 3, 11)
_PARTS = {"inpaint": "#mask"}  # of the page; other pictures show all that is on the screen


def _keep(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(600)  # until what fades has faded
    shown = page.locator(_PARTS[name]).screenshot() if name in _PARTS else page.screenshot()
    with Image.open(io.BytesIO(shown)) as picture:
        picture.convert("RGB").save(_ROOT / "docs" / "pictures" / f"web-{name}.webp", quality=88, method=6)


def _draw(page: Page) -> None:
    """Draw each of the first examples, the one that the page ends with last."""
    for index, seed in reversed(list(enumerate(_SEEDS))):
        page.locator(".examples button").nth(index).click()
        page.locator(".seed textarea, .seed input").first.fill(str(seed))
        page.click("#generate")
        page.wait_for_function(f"document.querySelector('#output .facts')?.innerText.includes('Seed {seed}')")
        page.wait_for_selector("#stop", state="hidden")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


def _compare(page: Page) -> None:
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-seed textarea, #compare-seed input").fill("7")
    page.click("#compare")
    page.wait_for_selector("#compared .slider")


def _reconstruct(page: Page) -> None:
    page.get_by_role("tab", name="Reconstruct").click()
    page.locator("#to-reconstruct input[type=file]").set_input_files(_ROOT / "docs" / "pictures" / "house.png")
    page.wait_for_selector("#to-reconstruct img")
    page.click("#reconstruct")
    page.wait_for_selector("#reconstructed .slider")


def _grid(page: Page) -> None:
    page.get_by_role("tab", name="Grid").click()
    page.fill("#grid-prompt textarea", "a yellow boat on the sea at sunset")
    page.locator("#grid-seed textarea, #grid-seed input").fill("3")
    page.locator("#values-x textarea, #values-x input").fill("2, 4, 30")
    page.locator("#axis-y input").click()
    page.get_by_role("option", name="Prompt S/R", exact=True).click()
    page.locator("#values-y textarea, #values-y input").fill("boat, house")
    page.click("#generate-grid")
    page.wait_for_selector("#grid .sheet img")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


def _gallery(page: Page) -> None:
    page.get_by_role("tab", name="Gallery").click()
    page.wait_for_selector(".gallery-grid img")
    page.wait_for_function("[...document.querySelectorAll('.gallery-grid img')].every((each) => each.complete)")


def _inpaint(page: Page) -> None:
    """The house of the first seed, with a mask painted over its sky."""
    page.get_by_role("tab", name="Generate").click()
    _choose(page, "storybook-sdxl")
    page.get_by_role("button", name="Use as init image").click()
    page.wait_for_selector("#mask canvas:visible")
    page.locator("#mask").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#mask img').naturalWidth")
    box = page.locator("#mask canvas").bounding_box()
    if box is None:
        raise RuntimeError("the mask editor can't be seen")
    for height in (0.12, 0.2, 0.28):
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + height * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + height * box["height"], steps=8)
        page.mouse.up()


def _choose(page: Page, model: str) -> None:
    page.locator(".inputs").first.get_by_label("Model").click()
    page.get_by_role("option", name=model, exact=True).click()
    page.wait_for_selector(f"body[data-settled='{model}']")


_TABS: dict[str, Callable[[Page], None]] = {
    "inpaint": _inpaint,
    "compare": _compare,
    "reconstruct": _reconstruct,
    "grid": _grid,
    "gallery": _gallery,
}


def main() -> None:
    """Draw on a page of each size; on the laptop's, also visit the other tabs."""
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        place = Path(folder)
        with served(["--gallery", str(place / "gallery")], place / "models", place / "log") as address:
            for name, (width, height) in _SIZES.items():
                page = browser.new_page(viewport={"width": width, "height": height})
                page.set_default_timeout(_PATIENCE)
                page.goto(address)
                page.wait_for_selector("body[data-settled]")
                _draw(page)
                _keep(page, name)
                for tab, shows in _TABS.items() if name == "laptop" else ():
                    shows(page)
                    _keep(page, tab)
                page.close()


if __name__ == "__main__":
    main()
