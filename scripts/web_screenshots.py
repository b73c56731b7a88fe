"""Take the pictures of the page that docs/web.md shows: on a phone, a laptop and a wide screen.

python -m scripts.web_screenshots
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from scripts.browser import launched, served

_ROOT = Path(__file__).resolve().parent.parent
_SIZES = {"phone": (390, 844), "laptop": (1366, 768), "wide": (1920, 1080)}
_PATIENCE = 300_000  # milliseconds
_SEEDS = (7, 3, 11)


def _keep(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(600)  # until what fades has faded
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(_ROOT / "docs" / "pictures" / f"web-{name}.webp", quality=88, method=6)


def _draw(page: Page) -> None:
    """Draw each of the first examples, the one that the page ends with last."""
    for index, seed in reversed(list(enumerate(_SEEDS))):
        page.locator(".examples button").nth(index).click()
        page.get_by_label("Seed", exact=True).first.fill(str(seed))
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
    page.locator("#grid-seed textarea, #grid-seed input").fill("7")
    page.locator("#values-x textarea").fill("4, 12, 30")
    page.locator("#axis-y input").click()
    page.get_by_role("option", name="Guidance", exact=True).click()
    page.locator("#values-y textarea").fill("1, 4")
    page.click("#generate-grid")
    page.wait_for_selector("#stop-grid", state="hidden")
    page.locator("#grid-output img").first.scroll_into_view_if_needed()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


def _gallery(page: Page) -> None:
    page.get_by_role("tab", name="Gallery").click()
    page.wait_for_selector(".gallery-pictures img, #gallery img")


def main() -> None:
    """Draw on a page of each size; on the laptop's, also visit the other tabs."""
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        place = Path(folder)
        with served(["--gallery", str(place / "gallery")], place / "models", place / "log") as address:
            for name, (width, height) in _SIZES.items():
                page = browser.new_page(viewport={"width": width, "height": height})
                page.set_default_timeout(_PATIENCE)
                page.goto(address)
                page.wait_for_function("document.querySelector('.settings [aria-label=Size]')?.value")
                _draw(page)
                _keep(page, name)
                if name == "laptop":
                    _compare(page)
                    _keep(page, "compare")
                    _reconstruct(page)
                    _keep(page, "reconstruct")
                    _grid(page)
                    _keep(page, "grid")
                    _gallery(page)
                    _keep(page, "gallery")
                page.close()


if __name__ == "__main__":
    main()
