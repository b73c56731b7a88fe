"""Live drawing in a browser: the last text is drawn, and little else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.web.conftest import Visitor
from tests.web.test_page import long_drawing

QUICK = "storybook-sdxl"

# Remembers the texts of all pictures in the output.
_WATCH = """
window.texts = [];
new MutationObserver(() => {
  const text = document.querySelector("#output img")?.alt;
  if (text && text !== window.texts.at(-1)) window.texts.push(text);
}).observe(document.querySelector("#output"), { subtree: true, childList: true, attributes: true });
"""


def turns_on(visitor: Visitor) -> None:
    visitor.chooses(QUICK)
    visitor.page.get_by_label("Live").check()


def shows(visitor: Visitor, text: str) -> None:
    expect(visitor.picture).to_have_attribute("alt", text)
    expect(visitor.page.locator("#output .facts")).to_contain_text("Live")


def seed(visitor: Visitor) -> str:
    found = re.search(r"Seed (\d+)", visitor.page.locator("#output .facts").inner_text())
    assert found is not None
    return found[1]


def test_quick_models_offer_it(visitor: Visitor) -> None:
    visitor.chooses("storybook-wuerstchen")
    expect(visitor.page.get_by_label("Live")).to_be_hidden()
    visitor.chooses(QUICK)
    expect(visitor.page.get_by_label("Live")).to_be_visible()


def test_the_last_text_is_drawn(visitor: Visitor) -> None:
    """Not a drawing for each key; always from the same seed; and nothing goes into the history until it is kept."""
    visitor.page.fill("#prompt textarea", "a tree")
    turns_on(visitor)
    shows(visitor, "a tree")
    before = seed(visitor)
    visitor.page.evaluate(_WATCH)
    calls: list[Any] = []
    visitor.page.on("request", lambda request: calls.append(request) if "queue/join" in request.url else None)
    text = "two red houses on a snowy hill at night"
    visitor.page.fill("#prompt textarea", "")
    visitor.page.locator("#prompt textarea").press_sequentially(text, delay=15)
    shows(visitor, text)
    assert seed(visitor) == before
    shown = visitor.page.evaluate("window.texts")
    assert len(shown) <= len(text) / 4
    assert len(calls) <= len(text) / 2
    expect(visitor.page.locator("#history .gallery")).to_have_count(0)
    visitor.sees("live")
    visitor.page.click("#keep")
    expect(visitor.page.locator("#history .gallery img")).to_have_count(1)
    expect(visitor.page.locator("#history .gallery img")).to_have_attribute("alt", text)
    expect(visitor.page.locator("#keep")).to_be_hidden()
    expect(visitor.page.locator("#output .facts")).not_to_contain_text("Live")
    visitor.page.get_by_label("Live").uncheck()
    visitor.page.fill("#prompt textarea", "a boat")
    visitor.page.wait_for_timeout(1000)
    expect(visitor.picture).to_have_attribute("alt", text)


def test_a_setting_that_changes_draws_again(visitor: Visitor) -> None:
    visitor.page.fill("#prompt textarea", "a tree")
    turns_on(visitor)
    shows(visitor, "a tree")
    visitor.text("Seed").fill("7")
    expect(visitor.page.locator("#output .facts")).to_contain_text("Seed 7")
    visitor.text("Seed").fill("seven")
    visitor.reads(".settings .notes:visible", "give a whole number")


def test_it_waits_its_turn(visitors: Callable[..., Visitor]) -> None:
    other, one = visitors(), visitors()
    long_drawing(other)
    expect(other.page.locator("#output .status")).to_have_text(re.compile("step"))
    one.page.fill("#prompt textarea", "a tree")
    turns_on(one)
    expect(one.page.locator("#live-state")).to_have_text("Queued: one job ahead of yours")
    one.page.fill("#prompt textarea", "a boat")
    one.sees("waiting")
    expect(other.page.locator("#stop")).to_be_visible()
    other.page.close()
    shows(one, "a boat")
    expect(one.page.locator("#live-state")).to_have_text("")


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1366, 1920])
def test_it_looks_right(visitors: Callable[..., Visitor], width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    visitor = visitors(viewport={"width": width, "height": 900}, color_scheme=scheme)
    visitor.page.fill("#prompt textarea", "a tree")
    turns_on(visitor)
    shows(visitor, "a tree")
    expect(visitor.page.locator("#keep")).to_be_visible()
    visitor.fits(width)
    visitor.page.wait_for_timeout(500)
    visitor.sees("looks", whole=True)
    found = Axe().run(visitor.page)
    assert found.violations_count == 0, found.generate_report()
