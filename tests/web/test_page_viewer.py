"""Looking at pictures: the even grid of a request's pictures, the viewer, and an earlier request's settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.web.conftest import Visitor, box_of
from vinograph.images import read_metadata
from vinograph.web.viewing import even_columns

SIZES = [(1366, 768), *(pytest.param(size, marks=pytest.mark.long) for size in [(390, 844), (1920, 1080)])]
SCHEMES = ["light", pytest.param("dark", marks=pytest.mark.long)]
MODEL = "storybook-sdxl"


def draw_several(visitor: Visitor, count: int, prompt: str = "a red house") -> None:
    """Draw so many pictures in one step, from seed 5."""
    visitor.chooses(MODEL)
    visitor.sets("Images", count)
    visitor.sets("Steps", 1)
    visitor.text("Seed").fill("5")
    visitor.draws(prompt)
    expect(visitor.page.locator("#output button.view")).to_have_count(count)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (7, 4), (8, 4), (9, 3)])
def test_an_even_grid_has_few_gaps(count: int, columns: int) -> None:
    assert even_columns(count) == columns


@pytest.fixture
def dialog(visitor: Visitor) -> Locator:
    return visitor.page.locator("dialog.viewer")


class TestSeveralPictures:
    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("size", SIZES)
    def test_they_are_an_even_grid_on_the_screen(
        self, visitors: Callable[..., Visitor], size: tuple[int, int], scheme: str
    ) -> None:
        visitor = visitors(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        draw_several(visitor, 4)
        cells = visitor.page.locator("#output .even figure")
        boxes = [box_of(each) for each in visitor.page.locator("#output button.view").all()]
        for each in boxes:
            assert each["width"] == pytest.approx(boxes[0]["width"], abs=1)
            assert each["height"] == pytest.approx(each["width"], rel=0.02)
        assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"]
        assert boxes[0]["x"] == boxes[2]["x"] < boxes[1]["x"] == boxes[3]["x"]
        top = min(each["y"] for each in boxes)
        assert max(each["y"] + each["height"] for each in boxes) - top <= size[1]
        for index in range(4):
            expect(cells.nth(index).locator("figcaption")).to_contain_text(f"Seed {5 + index}")
            expect(cells.nth(index).locator("figcaption")).to_be_visible()
        visitor.fits(size[0])
        visitor.sees("grid", whole=True)

    def test_one_is_selected_and_all_are_shown_again(self, visitor: Visitor) -> None:
        draw_several(visitor, 3)
        visitor.page.locator("#output").get_by_role("button", name="Select the picture of seed 6").click()
        expect(visitor.page.locator("#output .facts")).to_contain_text("Seed 6")
        expect(visitor.page.locator("#output button.view")).to_have_count(1)
        visitor.page.get_by_role("button", name="Show all 3 of this request").click()
        expect(visitor.page.locator("#output button.view")).to_have_count(3)


class TestSelectedPicture:
    def test_its_own_prompt_and_settings_stand_by_it(self, visitor: Visitor) -> None:
        draw_several(visitor, 1, "a red house")
        visitor.sets("Steps", 2)
        visitor.text("Seed").fill("77")
        visitor.draws("a yellow boat")
        expect(visitor.page.locator("#output .spoken")).to_have_text("a yellow boat")
        visitor.page.locator("#history .gallery button").nth(1).click()
        there = visitor.page.locator("#output .spoken")
        expect(there).to_have_text("a red house")
        expect(there).to_be_visible()
        assert box_of(there)["y"] >= box_of(visitor.page.locator("#output button.view"))["y"]
        expect(visitor.page.locator("#output .facts")).to_contain_text(re.compile(rf"Seed 5.*256×256.*{MODEL}"))
        expect(visitor.page.locator("#output .facts")).to_contain_text("Steps 1")

    def test_its_settings_are_used_again(self, visitor: Visitor, tmp_path: Path) -> None:
        """Also those that differ from the model's defaults, after another model was chosen."""
        visitor.chooses(MODEL)
        visitor.asks_for_size(320, 256)
        visitor.sets("Steps", 3)
        visitor.sets("Guidance", 2)
        visitor.text("Negative prompt").fill("a boat")
        visitor.text("Seed").fill("77")
        visitor.draws("a yellow boat")
        first = read_metadata(visitor.saves("Download PNG", tmp_path, "first.png"))
        visitor.chooses("storybook-wuerstchen")
        visitor.page.fill("#prompt textarea", "something else")
        visitor.page.get_by_role("button", name="Use these settings").click()
        expect(visitor.page.locator("#prompt textarea")).to_have_value("a yellow boat")
        expect(visitor.page.locator(".inputs").first.get_by_label("Model")).to_have_value(MODEL)
        expect(visitor.number("Steps")).to_have_value("3")
        expect(visitor.number("Guidance")).to_have_value("2")
        expect(visitor.text("Negative prompt")).to_have_value("a boat")
        expect(visitor.text("Negative prompt")).to_be_visible()
        expect(visitor.text("Seed")).to_have_value("77")
        expect(visitor.text("Width")).to_have_value("320")
        visitor.page.wait_for_timeout(300)  # what a change of the model would set follows at once
        visitor.draws()
        again = read_metadata(visitor.saves("Download PNG", tmp_path, "again.png"))
        assert first is not None
        assert again is not None
        assert again["request"] == first["request"]

    def test_so_is_its_init_image(self, visitor: Visitor) -> None:
        draw_several(visitor, 1)
        visitor.page.get_by_role("button", name="Use as init image").click()
        expect(visitor.number("Strength")).to_be_visible()
        visitor.page.wait_for_timeout(1000)
        visitor.sets("Strength", 0.55)
        visitor.draws("a blue house")
        visitor.page.locator("#history .gallery button").nth(1).click()
        expect(visitor.page.locator("#output .spoken")).to_have_text("a red house")
        visitor.page.get_by_role("button", name="Use these settings").click()
        expect(visitor.number("Strength")).to_be_hidden()
        visitor.page.locator("#history .gallery button").nth(0).click()
        expect(visitor.page.locator("#output .spoken")).to_have_text("a blue house")
        visitor.page.get_by_role("button", name="Use these settings").click()
        expect(visitor.number("Strength")).to_be_visible()
        visitor.page.wait_for_timeout(500)  # until the change of the init image has been answered
        expect(visitor.number("Strength")).to_have_value("0.55")
        expect(visitor.text("Size")).to_have_value("Same as the init image")


class TestViewer:
    def test_it_opens_large_and_goes_through_the_group(self, visitor: Visitor, dialog: Locator) -> None:
        draw_several(visitor, 3)
        page = visitor.page
        opener = page.locator("#output button.view").nth(1)
        before = box_of(opener)
        opener.focus()
        page.keyboard.press("Enter")
        expect(dialog).to_be_visible()
        image = dialog.locator("img")
        expect(image).to_have_attribute("src", re.compile("gradio_api/file="))
        expect(dialog.locator(".caption")).to_contain_text(re.compile(r"a red house\s+Seed 6 · 256×256"))
        expect(dialog).to_contain_text("2 of 3")
        expect(image).to_have_js_property("naturalWidth", 256)
        assert box_of(image)["height"] > 1.5 * before["height"]
        assert box_of(dialog) == {"x": 0, "y": 0, "width": 1366, "height": 768}
        assert box_of(image)["y"] + box_of(image)["height"] <= box_of(dialog.locator(".viewer-bar"))["y"] + 1
        visitor.sees("open")
        page.keyboard.press("ArrowRight")
        expect(dialog.locator(".caption")).to_contain_text("Seed 7")
        page.keyboard.press("ArrowRight")
        expect(dialog.locator(".caption")).to_contain_text("Seed 5")
        page.keyboard.press("ArrowLeft")
        expect(dialog.locator(".caption")).to_contain_text("Seed 7")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(opener).to_be_focused()

    def test_a_click_outside_closes_it(self, visitor: Visitor, dialog: Locator) -> None:
        draw_several(visitor, 1)
        visitor.picture.click()
        expect(dialog).to_be_visible()
        for each in ("Hold to compare", "Previous", "Next"):  # there is nothing to go to
            expect(dialog.get_by_role("button", name=each)).to_be_hidden()
        visitor.page.mouse.click(30, 300)
        expect(dialog).to_be_hidden()

    def test_focus_stays_in_it(self, visitor: Visitor, dialog: Locator) -> None:
        draw_several(visitor, 2)
        visitor.picture.first.click()
        expect(dialog).to_be_visible()
        for key in [*["Tab"] * 9, *["Shift+Tab"] * 9]:
            visitor.page.keyboard.press(key)
            expect(dialog.locator("button:focus, a:focus")).to_have_count(1)

    def test_it_zooms_and_pans(self, visitor: Visitor, dialog: Locator) -> None:
        draw_several(visitor, 1)
        visitor.picture.click()
        image = dialog.locator("img")
        expect(image).to_have_js_property("naturalWidth", 256)
        fitted = box_of(image)
        dialog.get_by_role("button", name="100%").click()
        assert box_of(image)["width"] == pytest.approx(256, abs=1)
        dialog.get_by_role("button", name="Fit", exact=True).click()
        assert box_of(image) == fitted
        point = (fitted["x"] + fitted["width"] / 4, fitted["y"] + fitted["height"] / 4)
        visitor.page.mouse.move(*point)
        visitor.page.mouse.wheel(0, -600)
        visitor.page.wait_for_function(f"document.querySelector('dialog.viewer img').width > {2 * fitted['width']}")
        zoomed = box_of(image)
        for axis, side, at in (("x", "width", point[0]), ("y", "height", point[1])):  # the point stays where it was
            assert (at - zoomed[axis]) / zoomed[side] == pytest.approx(0.25, abs=0.01)
        visitor.page.mouse.down()
        visitor.page.mouse.move(point[0] + 90, point[1] + 40, steps=4)
        visitor.page.mouse.up()
        moved = box_of(image)
        assert moved["x"] == pytest.approx(zoomed["x"] + 90, abs=2)
        assert moved["y"] == pytest.approx(zoomed["y"] + 40, abs=2)
        expect(dialog).to_be_visible()

    @pytest.mark.parametrize("key", ["Space", pytest.param("c", marks=pytest.mark.long)])
    def test_a_held_key_shows_the_previous_picture(self, visitor: Visitor, dialog: Locator, key: str) -> None:
        draw_several(visitor, 3)
        visitor.picture.nth(2).click()
        expect(dialog.locator(".hint")).to_be_visible()
        expect(dialog.locator(".hint")).to_contain_text("hold to compare with the previous picture")
        own = dialog.locator("img").get_attribute("src")
        badge = dialog.get_by_text("Previous picture", exact=True)
        expect(badge).to_be_hidden()
        visitor.page.keyboard.down(key)
        expect(dialog.locator(".caption")).to_contain_text("Seed 6")  # drawn before it
        expect(badge).to_be_visible()
        visitor.sees("held")
        visitor.page.keyboard.up(key)
        expect(dialog.locator("img")).to_have_attribute("src", str(own))
        expect(badge).to_be_hidden()
        visitor.page.keyboard.press("ArrowRight")  # on to the first, from the third
        expect(dialog.locator(".caption")).to_contain_text("Seed 5")
        visitor.page.keyboard.down(key)
        expect(dialog.locator("img")).to_have_attribute("src", str(own))  # looked at before it
        visitor.page.keyboard.up(key)

    def test_a_picture_goes_through_the_history(self, visitor: Visitor, dialog: Locator) -> None:
        draw_several(visitor, 1, "a red house")
        visitor.draws("a yellow boat")
        visitor.picture.click()
        expect(dialog.locator(".caption")).to_contain_text("a yellow boat")
        expect(dialog).to_contain_text("1 of 2")
        visitor.page.keyboard.down("c")
        expect(dialog.locator(".caption")).to_contain_text("a red house")  # the older one comes after it
        visitor.page.keyboard.up("c")

    def test_its_buttons(self, visitor: Visitor, dialog: Locator, tmp_path: Path) -> None:
        draw_several(visitor, 2)
        visitor.picture.nth(1).click()
        with visitor.page.expect_download() as download:
            dialog.get_by_role("link", name="Download").click()
        assert download.value.suggested_filename == "a-red-house-6.png"
        download.value.save_as(tmp_path / "saved.png")
        record = read_metadata(tmp_path / "saved.png")
        assert record is not None
        assert record["request"]["seed"] == 6
        dialog.get_by_role("button", name="Use as init image").click()
        expect(dialog).to_be_hidden()
        expect(visitor.number("Strength")).to_be_visible()

    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("size", SIZES)
    def test_axe_finds_nothing(self, visitors: Callable[..., Visitor], size: tuple[int, int], scheme: str) -> None:
        from axe_playwright_python.sync_playwright import Axe

        visitor = visitors(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        draw_several(visitor, 2)
        visitor.page.wait_for_timeout(500)  # until what fades in has its own colours
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()
        visitor.picture.first.click()
        expect(visitor.page.locator("dialog.viewer img")).to_be_visible()
        visitor.sees("viewer")
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()
        bar = box_of(visitor.page.locator("dialog.viewer .viewer-bar"))
        assert bar["y"] + bar["height"] <= size[1] + 1


class TestTouch:
    @pytest.mark.parametrize("along", [-200, pytest.param(200, marks=pytest.mark.long)])
    def test_a_swipe_turns(self, visitors: Callable[..., Visitor], along: int) -> None:
        visitor = visitors(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        draw_several(visitor, 3)
        visitor.picture.nth(1).tap()
        dialog = visitor.page.locator("dialog.viewer")
        expect(dialog).to_be_visible()
        expect(dialog.get_by_role("button", name="Hold to compare")).to_be_visible()
        session = visitor.page.context.new_cdp_session(visitor.page)
        start = 195 - along // 2
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": start, "y": 300}]})
        for part in range(1, 6):
            point = {"x": start + along * part // 5, "y": 300}
            session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(dialog.locator(".caption")).to_contain_text("Seed 7" if along < 0 else "Seed 5")
        visitor.sees("touch")
