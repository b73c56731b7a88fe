"""The tab Compare: the sides swap, the difference is shown in pixels and figures, and all can be saved."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.web.conftest import Visitor
from vinograph.web.compare_view import GAINS, difference

MODEL = "storybook-sdxl"


class TestDifference:
    def test_its_figures_and_its_pictures(self) -> None:
        one, other = Image.new("RGB", (4, 2), (10, 200, 30)), Image.new("RGB", (4, 2), (10, 180, 30))
        other.putpixel((0, 0), (110, 200, 30))
        found = difference(one, other)
        assert found.largest == 100
        assert found.mean == pytest.approx((100 + 7 * 20) / 24)
        for gain in GAINS:
            shown = found.picture(gain)
            assert shown.getpixel((0, 0)) == (min(100 * gain, 255), 0, 0)
            assert shown.getpixel((3, 1)) == (0, min(20 * gain, 255), 0)

    def test_equal_pictures_have_none(self) -> None:
        picture = Image.effect_noise((16, 16), 40).convert("RGB")
        found = difference(picture, picture.copy())
        assert (found.largest, found.mean) == (0, 0)
        assert not np.asarray(found.picture(16)).any()


def choose(visitor: Visitor, side: str, steps: int) -> None:
    there = visitor.page.locator(f"#side-{side}")
    if there.get_by_label("Model").input_value() != MODEL:  # choosing it again would set the steps again, later
        there.get_by_label("Model").click()
        there.get_by_role("option", name=MODEL, exact=True).click()
    number = there.get_by_label("number input for Steps", exact=True)
    expect(number).to_have_value("1")
    number.fill(str(steps))
    number.press("Tab")


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def saves(visitor: Visitor, link: str, file: Path) -> np.ndarray:
    with visitor.page.expect_download() as download:
        visitor.page.locator("#compared").get_by_role("link", name=link, exact=True).click()
    download.value.save_as(file)
    return pixels(file)


def steps_of(visitor: Visitor, side: str) -> Locator:
    return visitor.page.locator(f"#side-{side}").get_by_label("number input for Steps", exact=True)


def test_two_pictures_are_compared(visitor: Visitor, tmp_path: Path) -> None:
    """All in one visit: drawing two pictures takes longer than looking at them."""
    page = visitor.page
    page.get_by_role("tab", name="Compare").click()
    choose(visitor, "a", 1)
    choose(visitor, "b", 3)
    page.locator("#compare-seed textarea, #compare-seed input").fill("3")
    page.click("#compare")
    compared = page.locator("#compared")
    expect(compared.locator(".slider")).to_be_visible()
    expect(compared.locator(".both figure").first).to_contain_text("Steps 1")

    a, b = (saves(visitor, f"Download {name}", tmp_path / f"{name}.png") for name in "AB")
    apart = np.abs(a - b)
    assert apart.max() > 0
    facts = compared.locator(".comparison > .facts")
    expect(facts).to_contain_text(f"Largest difference {apart.max()} of 255")
    expect(facts).to_contain_text(f"Mean difference {apart.mean():.2f} of 255")
    both = saves(visitor, "Download side by side", tmp_path / "both.png")
    assert both.shape[1] > a.shape[1] + b.shape[1]

    for gain in GAINS:
        page.get_by_text(f"Difference ×{gain}", exact=True).click()
        expect(compared.locator(".slider")).to_be_hidden()
        expect(compared.locator(f"[data-shows='{gain}'] img")).to_be_visible()
        expect(compared.locator("[data-shows] img:visible")).to_have_count(1)
        address = str(compared.locator(f"[data-shows='{gain}'] img").get_attribute("src"))
        (tmp_path / f"{gain}.png").write_bytes(page.request.get(visitor.address + address).body())
        assert (pixels(tmp_path / f"{gain}.png") == np.minimum(apart * gain, 255)).all()
    visitor.sees("difference", whole=True)

    compared.locator("[data-shows='16'] img").click()
    expect(page.locator("dialog.viewer .caption")).to_contain_text("Difference of A and B, ×16")
    page.keyboard.press("Escape")
    compared.locator(".both img").nth(1).click()
    expect(page.locator("dialog.viewer .caption")).to_contain_text(re.compile(rf"Seed 3 · 256×256 · {MODEL}"))
    expect(page.locator("dialog.viewer")).to_contain_text("2 of 2")
    page.keyboard.press("Escape")

    before = [compared.locator(".both img").nth(index).get_attribute("src") for index in range(2)]
    page.click("#swap")
    expect(compared.locator(".both img").nth(0)).to_have_attribute("src", str(before[1]))
    expect(compared.locator(".both img").nth(1)).to_have_attribute("src", str(before[0]))
    expect(compared.locator(".slider img").nth(0)).to_have_attribute("src", str(before[1]))
    expect(steps_of(visitor, "a")).to_have_value("3")
    expect(steps_of(visitor, "b")).to_have_value("1")
    assert (saves(visitor, "Download A", tmp_path / "swapped.png") == b).all()
    visitor.sees("swapped", whole=True)
