"""The page's queue in a browser: filled while it draws, put into another order, stopped."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.web.conftest import Visitor, box_of, served
from tests.web.test_page import long_drawing
from vinograph.models import catalog

QUICK = "storybook-sdxl"
WIDTHS = [pytest.param(width, marks=pytest.mark.long) for width in (390, 1920)]


def rows(visitor: Visitor) -> Locator:
    """The requests that wait, as the page lists them."""
    return visitor.page.locator("#queue ol li")


def prompts(visitor: Visitor) -> Locator:
    return visitor.page.locator("#queue ol li p")


def presses(visitor: Visitor, action: str, prompt: str) -> None:
    visitor.page.locator("#queue").get_by_role("button", name=f"{action}: {prompt}").click()


def history(visitor: Visitor) -> Locator:
    return visitor.page.locator("#history .gallery img")


def shows_newest_first(visitor: Visitor, *texts: str) -> None:
    expect(history(visitor)).to_have_count(len(texts))
    for index, text in enumerate(texts):
        expect(history(visitor).nth(index)).to_have_attribute("alt", text)


def draws_long(visitor: Visitor) -> None:
    """Begin a drawing that ends when it is stopped, and go back to a quick model."""
    long_drawing(visitor)
    expect(visitor.page.locator("#output .status")).to_have_text(re.compile("step"))
    visitor.chooses(QUICK)


def queues(visitor: Visitor, *texts: str) -> None:
    for index, text in enumerate(texts, 1):
        before = rows(visitor).count()
        visitor.page.fill("#prompt textarea", text)
        if index % 2:
            visitor.page.click("#generate")
        else:
            visitor.page.keyboard.press("Control+Enter")
        expect(rows(visitor)).to_have_count(before + 1)


def test_it_is_filled_and_changed_while_it_draws(visitor: Visitor) -> None:
    draws_long(visitor)
    queues(visitor, "a red house", "a blue boat", "a green tree", "a cat")
    expect(rows(visitor).first).to_contain_text(f"{QUICK} · 1 image")
    assert box_of(rows(visitor).last)["height"] > 30
    presses(visitor, "Move up", "a green tree")
    expect(prompts(visitor)).to_have_text(["a red house", "a green tree", "a blue boat", "a cat"])
    focused = visitor.page.locator("#queue button:focus")
    expect(focused).to_have_attribute("aria-label", "Move up: a green tree")
    visitor.page.keyboard.press("Enter")
    expect(prompts(visitor)).to_have_text(["a green tree", "a red house", "a blue boat", "a cat"])
    expect(focused).to_have_attribute("aria-label", "Move down: a green tree")  # it can rise no further
    presses(visitor, "Remove", "a red house")
    expect(prompts(visitor)).to_have_text(["a green tree", "a blue boat", "a cat"])
    visitor.sees("queued", whole=True)
    visitor.page.click("#stop")  # the rest is drawn
    shows_newest_first(visitor, "a cat", "a blue boat", "a green tree")
    expect(visitor.picture).to_have_attribute("alt", "a cat")
    expect(visitor.page.locator("#queue")).to_be_hidden()
    expect(visitor.page.locator("#stop")).to_be_hidden()


def test_everything_stops(visitor: Visitor) -> None:
    draws_long(visitor)
    queues(visitor, "a red house", "a blue boat")
    visitor.page.get_by_role("button", name="Stop all").click()
    expect(visitor.page.locator("#output")).to_contain_text("Stopped after")
    expect(visitor.page.locator("#queue")).to_be_hidden()
    expect(visitor.page.locator("#stop")).to_be_hidden()
    expect(history(visitor)).to_have_count(0)
    visitor.draws("a cat")  # and it goes on


def test_one_that_fails_does_not_hold_up_the_others(visitors: Callable[..., Visitor], tmp_path: Path) -> None:
    models = tmp_path / "models"
    (first,) = (path for path in catalog.embedded() if path.name == QUICK)
    shutil.copytree(first, models / "damaged")
    with served("--model", QUICK, models=models) as address:
        for file in (models / "damaged").glob("*.bin"):
            file.write_bytes(file.read_bytes()[:100])
        visitor = visitors(address)
        draws_long(visitor)
        visitor.page.locator(".inputs").first.get_by_label("Model").click()
        visitor.page.get_by_role("option", name="damaged", exact=True).click()
        queues(visitor, "a red house")
        visitor.chooses(QUICK)
        queues(visitor, "a blue boat")
        visitor.page.click("#stop")
        expect(history(visitor)).to_have_count(1)
        failure = visitor.page.locator("#queue [role=alert] li")
        expect(failure).to_contain_text("a red house")
        expect(failure).to_contain_text("damaged")
        visitor.sees("failed", whole=True)
        presses(visitor, "Dismiss", "a red house")
        expect(visitor.page.locator("#queue")).to_be_hidden()
        visitor.page.close()


def test_visitors_take_turns(visitors: Callable[..., Visitor]) -> None:
    """One sees that another's drawing comes first, and changes the order meanwhile; then the other leaves."""
    other, one = visitors(), visitors()
    draws_long(other)
    one.chooses(QUICK)
    queues(one, "a red house", "a blue boat")
    expect(one.page.locator("#output .status")).to_have_text("Queued: one job ahead of yours")
    expect(rows(one).first).to_contain_text("after one other job")
    presses(one, "Move down", "a red house")
    expect(prompts(one)).to_have_text(["a blue boat", "a red house"])
    expect(rows(one).first).to_contain_text("after one other job")
    one.sees("behind")
    other.page.close()
    shows_newest_first(one, "a red house", "a blue boat")


def test_each_line_is_a_request(visitor: Visitor) -> None:
    visitor.chooses(QUICK)
    visitor.page.get_by_label("One prompt per line").check()
    visitor.presses_generate("a {red|blue} house\n\n# not this\na cat")
    shows_newest_first(visitor, "a cat", "a blue house", "a red house")
    visitor.presses_generate("a {" + "|".join(map(str, range(51))) + "}")
    visitor.reads("#notes", "the list stands for 51 prompts; give at most 50 at once")


def test_the_estimate_comes_with_the_second_drawing(visitor: Visitor) -> None:
    visitor.chooses(QUICK)
    for _ in range(2):
        visitor.draws("a red house")
    there = visitor.page.locator("#estimate")
    expect(there).to_have_text(re.compile(r"(About \d+(\.\d)?|Less than 0.1) s\s*$"))
    expect(there).to_be_visible()
    visitor.asks_for_size(384, 256)
    expect(there).to_have_text(re.compile(r"About \d+(\.\d)? s once the model is ready for this size\s*$"))
    visitor.sees("estimate")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
@pytest.mark.parametrize("width", [1366, *WIDTHS])
def test_it_looks_right(visitors: Callable[..., Visitor], width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    visitor = visitors(viewport={"width": width, "height": 900}, color_scheme=scheme)
    draws_long(visitor)
    queues(visitor, "a red house on a snowy hill at night " * 6, "a blue boat")
    visitor.fits(width)
    for box in map(box_of, rows(visitor).all()):
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    visitor.page.wait_for_timeout(500)
    visitor.sees("looks", whole=True)
    found = Axe().run(visitor.page)
    assert found.violations_count == 0, found.generate_report()
    visitor.page.get_by_role("button", name="Stop all").click()
    expect(visitor.page.locator("#stop")).to_be_hidden()
