"""What the page remembers: in the browser's storage, and of a page that is loaded again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from scripts import browser as browser_tools
from tests.web.conftest import Visitor
from vinograph.models import catalog

PROMPT = "a yellow boat on the sea at sunset"
NO_STORAGE = """Object.defineProperty(window, "localStorage", { get() { throw new DOMException("denied", "SecurityError"); } });"""


def ready(visitor: Visitor) -> None:
    visitor.page.wait_for_selector("body[data-settled]")


def reload(visitor: Visitor) -> None:
    visitor.page.wait_for_timeout(300)  # until it is written
    visitor.page.reload()
    ready(visitor)


def remembers(visitor: Visitor, stored: Any) -> None:
    """Load the page with that in the browser's storage."""
    text = stored if isinstance(stored, str) else json.dumps(stored)
    visitor.page.add_init_script(
        f"if (!sessionStorage.set) localStorage.setItem('vinograph', {json.dumps(text)}); sessionStorage.set = 1;"
    )
    visitor.page.reload()
    ready(visitor)


class TestReload:
    def test_it_is_as_it_was(self, visitor: Visitor) -> None:
        """Prompt, model, settings of each model, tab; and the history of this page."""
        visitor.chooses("storybook-sdxl")
        visitor.sets("Steps", 2)
        visitor.asks_for_size(320, 256)
        visitor.draws(PROMPT)
        visitor.chooses("storybook-wuerstchen")
        visitor.sets("Steps", 12)
        visitor.sets("Guidance", 4.5)
        visitor.text("Negative prompt").fill("fog")
        visitor.text("Seed").fill("18446744073709551615")
        visitor.page.get_by_role("tab", name="Compare").click()
        reload(visitor)
        expect(visitor.page.locator("#compare")).to_be_visible()
        visitor.page.get_by_role("tab", name="Generate").click()
        expect(visitor.page.locator("#prompt textarea")).to_have_value(PROMPT)
        expect(visitor.page.locator(".inputs").first.get_by_label("Model")).to_have_value("storybook-wuerstchen")
        expect(visitor.number("Steps")).to_have_value("12")
        expect(visitor.number("Guidance")).to_have_value("4.5")
        expect(visitor.text("Negative prompt")).to_be_visible()
        expect(visitor.text("Negative prompt")).to_have_value("fog")
        expect(visitor.text("Seed")).to_have_value("18446744073709551615")
        history = visitor.page.locator("#history .gallery button")
        expect(history).to_have_count(1)
        history.click()
        expect(visitor.page.locator("#output .facts")).to_contain_text("320×256")
        there = visitor.page.locator(".inputs").first
        there.get_by_label("Model").click()
        there.get_by_role("option", name="storybook-sdxl", exact=True).click()
        expect(visitor.number("Steps")).to_have_value("2")
        expect(visitor.text("Width")).to_have_value("320")
        visitor.sees("remembered")
        visitor.page.get_by_role("button", name="Reset settings").click()
        expect(visitor.number("Steps")).to_have_value("1")
        expect(visitor.text("Seed")).to_have_value("")
        expect(visitor.text("Size")).to_have_value(re.compile("256×256"))
        expect(visitor.page.locator("#prompt textarea")).to_have_value(PROMPT)
        reload(visitor)
        expect(visitor.number("Steps")).to_have_value("1")

    def test_two_pages_do_not_change_each_other(self, visitor: Visitor) -> None:
        """The last one that was used wins when the next is opened."""
        other = visitor.page.context.new_page()
        other.goto(visitor.address)
        other.wait_for_selector("body[data-settled]")
        visitor.page.fill("#prompt textarea", "the first")
        visitor.page.wait_for_timeout(300)
        other.fill("#prompt textarea", "the second")
        other.wait_for_timeout(300)
        expect(visitor.page.locator("#prompt textarea")).to_have_value("the first")
        third = visitor.page.context.new_page()
        third.goto(visitor.address)
        expect(third.locator("#prompt textarea")).to_have_value("the second")

    def test_a_server_that_is_started_again(self, visitors: Callable[..., Visitor], tmp_path: Path) -> None:
        """With a gallery the history is there, too; a model that is gone is named."""
        models, port = tmp_path / "models", browser_tools.free_port()
        first = next(path for path in catalog.embedded() if path.name == "storybook-sdxl")
        shutil.copytree(first, models / "gone")
        gallery = ("--gallery", str(tmp_path / "gallery"))
        with browser_tools.served(["--model", "gone", *gallery], models, tmp_path / "log", port) as address:
            visitor = visitors(address)
            visitor.sets("Steps", 2)
            visitor.draws(PROMPT)
            visitor.page.wait_for_timeout(300)
        shutil.rmtree(models / "gone")
        with browser_tools.served(["--model", "storybook-sdxl", *gallery], models, tmp_path / "log", port):
            visitor.page.reload()
            ready(visitor)
            expect(visitor.page.locator("#prompt textarea")).to_have_value(PROMPT)
            expect(visitor.page.locator("#history .gallery button")).to_have_count(1)
            visitor.reads("#notes", "gone isn't offered any more, so storybook-sdxl is chosen.")
            visitor.page.close()


class TestWhatIsStored:
    @pytest.mark.parametrize(
        "stored",
        [
            "{",
            "[]",
            "null",
            '{"models": 5, "model": []}',
            {"model": 7, "prompt": {"a": 1}, "models": {"storybook-sdxl": 3}},
            pytest.param({"model": "x" * 100_000, "prompt": "y" * 100_000, "tab": "Nowhere"}, id="long"),
        ],
    )
    def test_nonsense_breaks_nothing(self, visitor: Visitor, stored: Any) -> None:
        remembers(visitor, stored)
        visitor.chooses("storybook-sdxl")
        visitor.draws(PROMPT)

    def test_values_that_the_model_does_not_take(self, visitor: Visitor) -> None:
        """Each is dropped for its default, and the others are kept."""
        values = {
            **{"steps": 100_000, "guidance_scale": "much", "scheduler": "no such", "seed": "-5", "count": 99},
            **{"size_choice": "300x301", "vae_tiling": "of course", "hires": [1], "nothing": 1, "strength": 7},
            "hires_strength": 0.5,
        }
        stored = {"model": "storybook-sdxl", "prompt": PROMPT, "models": {"storybook-sdxl": values}}
        remembers(visitor, stored)
        expect(visitor.page.locator("#prompt textarea")).to_have_value(PROMPT)
        expect(visitor.number("Steps")).to_have_value("1")
        expect(visitor.number("Guidance")).to_have_value("0")
        expect(visitor.number("Images")).to_have_value("1")
        expect(visitor.number("Hires strength")).to_have_value("0.5")
        expect(visitor.text("Seed")).to_have_value("")
        expect(visitor.text("Size")).to_have_value(re.compile("256×256"))
        expect(visitor.page.locator("#notes p")).to_have_count(0)
        visitor.draws()

    def test_a_private_window(self, visitors: Callable[..., Visitor], server: str) -> None:
        """Without storage the page works, and remembers nothing."""
        visitor = visitors()
        visitor.page.add_init_script(NO_STORAGE)
        visitor.page.reload()
        ready(visitor)
        visitor.chooses("storybook-sdxl")
        visitor.sets("Steps", 2)
        visitor.draws(PROMPT)
        reload(visitor)
        expect(visitor.page.locator("#prompt textarea")).to_have_value("")
