"""The page in a browser, with the embedded models."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from scripts import browser as browser_tools
from tests.web.conftest import PATIENCE, ROOT, Visitor, box_of, served
from tests.web.posts import Client
from vinograph.images import read_metadata
from vinograph.models import catalog

EMBEDDED = [path.name for path in catalog.embedded()]


def shown(name: str) -> Any:
    """A model to show on the page: PixArt's only where all tests are run, since it has no controls of its own."""
    return pytest.param(name, marks=pytest.mark.long) if name.startswith("storybook-pixart") else name


MODELS = [shown(name) for name in EMBEDDED]
SIZES = [(390, 844), *(pytest.param(size, marks=pytest.mark.long) for size in [(1366, 768), (1920, 1080)])]
SIDES = (300, 256)
LONG = "a red house and a boat and a tree and a car and a cat and a lighthouse " * 12

# Remembers every address that the picture in the output had.
_WATCH = """
window.addresses = [];
new MutationObserver(() => {
  const source = document.querySelector("#output img")?.getAttribute("src");
  if (source && source !== window.addresses.at(-1)) window.addresses.push(source);
}).observe(document.querySelector("#output"), { subtree: true, childList: true, attributes: true });
"""


def takes(model: str, argument: str) -> bool:
    from vinograph import Pipeline

    return argument in Pipeline.from_pretrained(model).calls["generate"].takes


MASKED = [shown(name) for name in EMBEDDED if takes(name, "mask_image")]


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def paint(visitor: Visitor) -> None:
    """A stroke over the upper half of the picture to start from."""
    canvas = visitor.page.locator("#mask canvas")
    canvas.scroll_into_view_if_needed()
    box = box_of(canvas)
    for height in (0.1, 0.2, 0.3, 0.4):
        visitor.page.mouse.move(box["x"] + 5, box["y"] + height * box["height"])
        visitor.page.mouse.down()
        visitor.page.mouse.move(box["x"] + box["width"] - 5, box["y"] + height * box["height"], steps=6)
        visitor.page.mouse.up()


def long_drawing(visitor: Visitor) -> None:
    """Ask for what lasts until it is stopped: the server pauses after each of so many steps."""
    visitor.chooses("storybook-wuerstchen")
    visitor.sets("Steps", 120)
    visitor.presses_generate("a red house")


class TestDrawing:
    @pytest.mark.parametrize("model", MODELS)
    def test_it_forms_before_it_is_done(self, visitor: Visitor, model: str) -> None:
        visitor.chooses(model)
        visitor.page.evaluate(_WATCH)
        visitor.page.fill("#prompt textarea", "a red house on a snowy hill at night")
        visitor.page.keyboard.press("Control+Enter")
        visitor.page.wait_for_function("window.addresses.some((each) => each.startsWith('gradio_api'))")
        addresses = visitor.page.evaluate("window.addresses")
        assert addresses[0].startswith("data:image/webp")
        assert addresses[-1].startswith("gradio_api/file=")
        expect(visitor.page.locator("#output .facts")).to_contain_text(re.compile(r"Seed \d+.*256×256.*" + model))
        expect(visitor.page.locator("#output .facts")).to_contain_text(re.compile(r"\d\.\d\d s in all: text "))
        visitor.sees("drawn")

    def test_the_picture_carries_how_it_was_drawn(self, visitor: Visitor, tmp_path: Path) -> None:
        visitor.text("Seed").fill("18446744073709551615")
        visitor.draws("a yellow boat on the sea at sunset")
        file = visitor.saves("Download PNG", tmp_path, "boat.png")
        record = read_metadata(file)
        assert record is not None
        assert record["request"]["seed"] == 18446744073709551615
        assert record["request"]["prompt"] == "a yellow boat on the sea at sunset"

    def test_several_at_once_and_any_of_them_again(self, visitor: Visitor) -> None:
        visitor.chooses("storybook-sdxl")
        visitor.sets("Images", 3)
        visitor.text("Seed").fill("5")
        visitor.draws("a green tree in a meadow")
        there = visitor.page.locator("#history .gallery button")
        expect(there).to_have_count(3)
        there.nth(2).click()
        expect(visitor.page.locator("#output .facts")).to_contain_text("Seed 7")
        expect(visitor.snippet("python")).to_have_value(re.compile(r"seed=7\)"))
        visitor.sees("several")

    def test_it_stops_within_a_step(self, visitor: Visitor) -> None:
        long_drawing(visitor)
        expect(visitor.picture).to_have_attribute("src", re.compile("^data:"))
        expect(visitor.page.locator("#output [role=progressbar]")).to_have_attribute(
            "aria-valuenow", re.compile(r"\d+")
        )
        expect(visitor.page.locator("#output .status")).to_have_text(
            re.compile(r"Prior · step \d+ of 120 · about .* left")
        )
        visitor.sees("forming")
        visitor.page.click("#stop")
        expect(visitor.page.locator("#output")).to_contain_text(re.compile(r"Stopped after prior \d+ of 120"))
        expect(visitor.page.locator("#generate")).to_be_visible()
        expect(visitor.page.locator("#history .gallery")).to_have_count(0)
        visitor.sees("stopped")

    def test_words_that_were_cut_off_are_shown(self, visitor: Visitor) -> None:
        visitor.chooses("storybook-sdxl")
        visitor.draws(LONG)
        visitor.reads("#notes", re.compile(r"reads \d+ tokens; cut off: "))
        visitor.sees("cut-off", whole=True)

    def test_they_stay_with_their_picture(self, visitor: Visitor) -> None:
        """They stay when an init image or a model is chosen; another picture has its own."""
        visitor.chooses("storybook-sdxl")
        visitor.draws("a red house")
        expect(visitor.page.locator("#notes p")).to_have_count(0)
        visitor.draws(LONG)
        cut_off = re.compile("cut off: ")
        visitor.reads("#notes", cut_off)
        visitor.page.get_by_role("button", name="Use as init image").click()
        expect(visitor.number("Strength")).to_be_visible()
        visitor.reads("#notes", cut_off)
        visitor.chooses("storybook-wuerstchen")
        visitor.reads("#notes", cut_off)
        visitor.page.locator("#history .gallery button").nth(1).click()
        expect(visitor.page.locator("#notes p")).to_have_count(0)
        visitor.page.locator("#history .gallery button").nth(0).click()
        visitor.reads("#notes", cut_off)

    def test_a_note_is_never_longer_than_a_glance(self, visitor: Visitor) -> None:
        visitor.chooses("storybook-sdxl")
        visitor.draws("a red house and a boat " * 500)
        assert box_of(visitor.reads("#notes", re.compile("cut off: .* …$")))["height"] < 250

    def test_a_prompt_that_is_too_long(self, visitor: Visitor) -> None:
        visitor.presses_generate("a." * 24_000)
        visitor.reads("#notes", "the prompt has 48,000 characters; give at most 20,000")
        expect(visitor.picture).to_have_count(0)

    def test_examples_are_of_the_model(self, visitor: Visitor) -> None:
        visitor.page.locator(".examples button").nth(1).click()
        expect(visitor.page.locator("#prompt textarea")).to_have_value(re.compile("two green trees"))


class TestControls:
    def test_they_follow_the_model(self, visitor: Visitor) -> None:
        visitor.chooses("storybook-wuerstchen")
        expect(visitor.number("Decoder steps")).to_have_value("12")
        expect(visitor.text("Negative prompt")).to_be_visible()
        visitor.sees("before")
        visitor.chooses("storybook-sdxl")
        expect(visitor.number("Decoder steps")).to_be_hidden()
        expect(visitor.number("Guidance")).to_have_value("0")
        expect(visitor.text("Negative prompt")).to_be_hidden()
        visitor.sees("after")

    def test_the_negative_prompt_shows_where_it_has_an_effect(self, visitor: Visitor) -> None:
        visitor.chooses("storybook-sdxl")
        visitor.sets("Guidance", 2)
        expect(visitor.text("Negative prompt")).to_be_visible()
        visitor.sets("Guidance", 1)
        expect(visitor.text("Negative prompt")).to_be_hidden()

    def test_a_bad_size_is_refused_beside_the_field(self, visitor: Visitor) -> None:
        visitor.chooses("storybook-wuerstchen")
        visitor.asks_for_size(*SIDES)
        words = "Width is 300; this model draws multiples of 128 from 128 to 512, the nearest: 256 and 384"
        refusal = visitor.reads(".settings .notes:visible", words)
        visitor.presses_generate("a red house")
        expect(refusal).to_have_text(words)
        expect(visitor.picture).to_have_count(0)
        visitor.sees("refused")
        visitor.text("Width").fill("384")
        visitor.text("Width").press("Tab")
        expect(refusal).to_be_hidden()
        visitor.draws()
        expect(visitor.page.locator("#output .facts")).to_contain_text("384×256")

    @pytest.mark.parametrize("seed", ["-1", "seven", "18446744073709551616"])
    def test_so_is_a_bad_seed(self, visitor: Visitor, seed: str) -> None:
        visitor.text("Seed").fill(seed)
        visitor.presses_generate("a red house")
        visitor.reads(".settings .notes:visible", "give a whole number from 0 to 18446744073709551615")
        expect(visitor.picture).to_have_count(0)

    def test_the_die_rolls_a_seed(self, visitor: Visitor) -> None:
        visitor.page.get_by_role("button", name="Random seed").click()
        expect(visitor.text("Seed")).to_have_value(re.compile(r"^\d+$"))


class TestFromAPicture:
    @pytest.mark.parametrize("model", MODELS)
    def test_of_the_page_itself(self, visitor: Visitor, model: str) -> None:
        visitor.chooses(model)
        visitor.draws("a red house on a snowy hill at night")
        expect(visitor.number("Strength")).to_be_hidden()
        visitor.page.get_by_role("button", name="Use as init image").click()
        expect(visitor.number("Strength")).to_be_visible()
        expect(visitor.text("Size")).to_have_value("Same as the init image")
        visitor.draws("a blue house on a snowy hill at night")
        expect(visitor.snippet("python")).to_have_value(re.compile("'init.png'.*strength="))
        visitor.sees("changed", whole=True)

    def test_of_the_disk(self, visitor: Visitor) -> None:
        visitor.chooses("storybook-sdxl")
        visitor.page.get_by_role("button", name="Init image").click()
        visitor.page.locator("#init-image input[type=file]").set_input_files(ROOT / "docs" / "pictures" / "house.png")
        expect(visitor.number("Strength")).to_be_visible()
        visitor.draws("a blue house on a snowy hill at night")
        expect(visitor.page.locator("#output .links")).to_contain_text("init.png")

    def test_what_is_no_picture_is_refused_in_words(self, visitor: Visitor, tmp_path: Path) -> None:
        (tmp_path / "house.png").write_bytes(b"no picture")
        visitor.page.get_by_role("button", name="Init image").click()
        visitor.page.locator("#init-image input[type=file]").set_input_files(tmp_path / "house.png")
        refusal = visitor.reads("#notes", "picture: house.png is not a PNG, JPEG or WebP picture")
        expect(refusal).not_to_contain_text("/")
        visitor.sees("refused")
        visitor.page.get_by_role("tab", name="Reconstruct").click()
        visitor.page.locator("#to-reconstruct input[type=file]").set_input_files(tmp_path / "house.png")
        expect(visitor.page.locator("#to-reconstruct img")).to_have_count(1)
        visitor.page.click("#reconstruct")
        refusal = visitor.reads("#reconstruct-notes", "picture: house.png is not a PNG, JPEG or WebP picture")
        expect(refusal).not_to_contain_text("/")

    @pytest.mark.parametrize("model", MASKED)
    def test_paint_says_where(self, visitor: Visitor, model: str, tmp_path: Path) -> None:
        visitor.chooses(model)
        visitor.draws("a red house on a snowy hill at night")
        before = pixels(visitor.saves("Download PNG", tmp_path, "before.png"))
        visitor.page.get_by_role("button", name="Use as init image").click()
        expect(visitor.page.locator("#mask canvas")).to_be_visible()
        expect(visitor.page.locator("#mask img")).to_have_js_property("naturalWidth", 256)
        paint(visitor)
        visitor.sees("painted", whole=True)
        visitor.sets("Steps", 4)
        visitor.sets("Strength", 1)
        visitor.draws("a yellow boat on the sea at sunset")
        after = pixels(visitor.saves("Download PNG", tmp_path, "after.png"))
        mask = pixels(visitor.saves("mask.png", tmp_path, "mask.png"))
        assert mask[64].mean() > 200
        assert mask[200].max() == 0
        changed = np.abs(after - before).mean(axis=(1, 2))
        assert changed[20:100].mean() > 5 * changed[200:].mean()
        visitor.sees("inpainted")

    def test_models_without_masks_offer_none(self, visitor: Visitor) -> None:
        visitor.chooses("storybook-wuerstchen")
        visitor.page.get_by_role("button", name="Init image").click()
        visitor.page.locator("#init-image input[type=file]").set_input_files(ROOT / "docs" / "pictures" / "house.png")
        expect(visitor.number("Strength")).to_be_visible()
        expect(visitor.page.locator("#mask canvas")).to_be_hidden()


class TestSnippets:
    def same_again(self, visitor: Visitor, folder: Path) -> None:
        """Both snippets, run in ``folder``, write the picture that the page drew."""
        drawn = pixels(visitor.saves("Download PNG", folder, "drawn.png"))
        script = visitor.snippet("python").input_value()
        command = shlex.split(visitor.snippet("shell").input_value())
        assert command[0] == "vinograph"
        for arguments in (["-c", script], ["-m", *command]):
            (folder / "picture.png").unlink(missing_ok=True)
            subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)
            assert (pixels(folder / "picture.png") == drawn).all()

    @pytest.mark.parametrize("model", MODELS)
    def test_a_picture_of_words(self, visitor: Visitor, model: str, tmp_path: Path) -> None:
        visitor.chooses(model)
        visitor.sets("Steps", 7)
        visitor.sets("Guidance", 2.5)
        visitor.text("Negative prompt").fill("a boat's sail")
        visitor.asks_for_size(384, 256)
        visitor.draws('--a "red" house\'s roof')
        self.same_again(visitor, tmp_path)

    @pytest.mark.parametrize("model", MODELS)
    def test_a_picture_of_a_picture(self, visitor: Visitor, model: str, tmp_path: Path) -> None:
        visitor.chooses(model)
        visitor.draws("a red house")
        visitor.page.get_by_role("button", name="Use as init image").click()
        expect(visitor.number("Strength")).to_be_visible()
        visitor.draws("a blue house")
        visitor.saves("init.png", tmp_path, "init.png")
        self.same_again(visitor, tmp_path)

    @pytest.mark.parametrize("model", MASKED)
    def test_a_painted_one(self, visitor: Visitor, model: str, tmp_path: Path) -> None:
        visitor.chooses(model)
        visitor.draws("a red house")
        visitor.page.get_by_role("button", name="Use as init image").click()
        expect(visitor.page.locator("#mask img")).to_have_js_property("naturalWidth", 256)
        paint(visitor)
        visitor.draws("a blue house")
        for name in ("init.png", "mask.png"):
            visitor.saves(name, tmp_path, name)
        self.same_again(visitor, tmp_path)


class TestComparing:
    def test_two_models_side_by_side(self, visitor: Visitor) -> None:
        visitor.page.get_by_role("tab", name="Compare").click()
        first = EMBEDDED[0]
        for side, model in (("a", first), ("b", f"{first}-copy")):
            there = visitor.page.locator(f"#side-{side}")
            there.get_by_label("Model").click()
            there.get_by_role("option", name=model, exact=True).click()
        visitor.page.locator("#compare-seed textarea, #compare-seed input").fill("3")
        visitor.page.click("#compare")
        slider = visitor.page.locator("#compared .slider")
        expect(slider).to_be_visible()
        figures = visitor.page.locator("#compared .both figure")
        expect(figures).to_have_count(2)
        for index, name in enumerate((first, f"{first}-copy")):
            expect(figures.nth(index)).to_contain_text(re.compile(rf"{name}\s*Seed 3.*s in all", re.S))
        slider.locator("input").focus()
        visitor.page.keyboard.press("Home")
        expect(slider).to_have_attribute("style", re.compile(r"--at:\s*0%"))
        visitor.page.keyboard.press("ArrowRight")
        expect(slider).to_have_attribute("style", re.compile(r"--at:\s*1%"))
        visitor.sees("compared", whole=True)

    @pytest.mark.parametrize("width", [390, 1366, 1920])
    def test_its_slider_can_be_moved(self, visitors: Callable[..., Visitor], width: int) -> None:
        visitor = visitors(viewport={"width": width, "height": 844})
        visitor.page.get_by_role("tab", name="Compare").click()
        visitor.page.click("#compare")
        slider = visitor.page.locator("#compared .slider input")
        for side in range(2):
            expect(visitor.page.locator("#compared .slider img").nth(side)).to_have_js_property("naturalWidth", 256)
        slider.scroll_into_view_if_needed()
        box = box_of(slider)
        assert box["width"] >= 240
        visitor.page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        near_a_quarter = re.compile(r"--at:\s*(1[5-9]|2\d|3[0-5])(\.\d+)?%")
        expect(visitor.page.locator("#compared .slider")).to_have_attribute("style", near_a_quarter)
        visitor.sees("compared", whole=True)

    def test_two_settings(self, visitor: Visitor) -> None:
        visitor.page.get_by_role("tab", name="Compare").click()
        for side in ("a", "b"):
            there = visitor.page.locator(f"#side-{side}")
            there.get_by_label("Model").click()
            there.get_by_role("option", name="storybook-wuerstchen", exact=True).click()
        steps = visitor.page.locator("#side-b").get_by_label("number input for Steps", exact=True)
        expect(steps).to_have_value("30")
        steps.fill("4")
        steps.press("Tab")
        visitor.page.click("#compare")
        expect(visitor.page.locator("#compared .slider")).to_be_visible()
        visitor.sees("compared")


class TestReconstructing:
    @pytest.mark.parametrize("model", MODELS)
    def test_the_original_stands_beside_it(self, visitor: Visitor, model: str) -> None:
        visitor.page.get_by_role("tab", name="Reconstruct").click()
        there = visitor.page.get_by_role("tabpanel").filter(has=visitor.page.locator("#reconstruct"))
        there.get_by_label("Model").click()
        there.get_by_role("option", name=model, exact=True).click()
        visitor.page.locator("#to-reconstruct input[type=file]").set_input_files(
            ROOT / "docs" / "pictures" / "house.png"
        )
        expect(visitor.page.locator("#to-reconstruct img")).to_be_visible()
        visitor.page.click("#reconstruct")
        measures = re.compile(r"PSNR \d+\.\d\d dB · \d+\.\d times smaller in each direction · \d+ times fewer values")
        expect(visitor.page.locator("#reconstructed .measures")).to_have_text(measures)
        expect(visitor.page.locator("#reconstructed figure")).to_have_count(2)
        visitor.sees("reconstructed", whole=True)

    def test_it_wants_a_picture(self, visitor: Visitor) -> None:
        visitor.page.get_by_role("tab", name="Reconstruct").click()
        visitor.page.click("#reconstruct")
        visitor.reads("#reconstruct-notes", "Give an image first.")


class TestTwoAtOnce:
    def test_one_waits_and_sees_its_place(self, visitors: Callable[..., Visitor]) -> None:
        """The first leaves without a word: its drawing stops, and the other's begins."""
        one, other = visitors(), visitors()
        long_drawing(one)
        expect(one.picture).to_have_attribute("src", re.compile("^data:"))
        other.presses_generate("a yellow boat")
        expect(other.page.locator("#output .status")).to_have_text("Queued: one job ahead of yours")
        other.sees("waiting")
        one.page.close()
        expect(other.picture).to_have_attribute("src", re.compile("gradio_api"))

    def test_one_that_waits_can_leave_the_queue(self, visitors: Callable[..., Visitor]) -> None:
        one, other = visitors(), visitors()
        long_drawing(one)
        expect(one.picture).to_have_attribute("src", re.compile("^data:"))
        other.presses_generate("a yellow boat")
        expect(other.page.locator("#output .status")).to_have_text(re.compile("Queued"))
        other.page.click("#stop")
        expect(other.page.locator("#output")).to_contain_text("Stopped.")
        expect(one.page.locator("#stop")).to_be_visible()
        one.page.click("#stop")
        expect(one.page.locator("#generate")).to_be_visible()


class TestServer:
    def test_it_ends_while_it_draws(self, visitors: Callable[..., Visitor], tmp_path: Path) -> None:
        with served(models=tmp_path / "models") as address:
            visitor = visitors(address)
            long_drawing(visitor)
            expect(visitor.picture).to_have_attribute("src", re.compile("^data:"))

    def test_another_address_comes_with_a_warning(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with browser_tools.served(["--host", "0.0.0.0"], tmp_path / "models", log):
            while "Ctrl-C ends it" not in log.read_text():
                time.sleep(0.1)
        log_text = log.read_text()
        assert "warning: whoever can reach 0.0.0.0 can draw on this machine: the page asks for no password" in log_text

    @pytest.mark.parametrize(
        ("host", "proxy"),
        [
            pytest.param("127.0.0.1", "http", marks=pytest.mark.long),  # each starts a server
            ("localhost", "http"),
            pytest.param("127.0.0.1", "socks5", marks=pytest.mark.long),
            ("::1", "socks5h"),
        ],
    )
    def test_a_proxy_is_not_asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, proxy: str) -> None:
        """Nor is the package needed that asks one of its kind."""
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"{proxy}://127.0.0.1:9")
        with served("--host", host, models=tmp_path / "models"):
            pass

    def test_pictures_go_with_their_page(self, visitors: Callable[..., Visitor], tmp_path: Path) -> None:
        with served("--model", "storybook-sdxl", models=tmp_path / "models") as address:
            visitor = visitors(address)
            visitor.draws("a red house")
            source = visitor.picture.get_attribute("src")
            assert source is not None
            file = Path(source.partition("file=")[2])
            assert file.is_file()
            visitor.page.close()
            patience = time.monotonic() + PATIENCE / 1000
            while file.exists() and time.monotonic() < patience:
                time.sleep(0.1)
            assert not file.exists()
            assert file.parents[3].exists()
        assert not file.parents[3].exists()

    def test_so_do_uploads(self, visitors: Callable[..., Visitor], tmp_path: Path) -> None:
        with served("--model", "storybook-sdxl", models=tmp_path / "models") as address:
            visitor, other = visitors(address), visitors(address)
            for each in (visitor, other):
                each.page.get_by_role("button", name="Init image").click()
                each.page.locator("#init-image input[type=file]").set_input_files(
                    ROOT / "docs" / "pictures" / "house.png"
                )
                expect(each.number("Strength")).to_be_visible()
            sources = [each.page.locator("#init-image img").first.get_attribute("src") for each in (visitor, other)]
            mine, others = (Path(unquote(str(source).partition("file=")[2])) for source in sources)
            assert mine.is_file()
            assert others.is_file()
            visitor.page.close()
            patience = time.monotonic() + PATIENCE / 1000
            while mine.exists() and time.monotonic() < patience:
                time.sleep(0.1)
            assert not mine.exists()
            assert others.is_file()

    def test_under_another_name(self, tmp_path: Path) -> None:
        with served("--allowed-host", "pictures.example", models=tmp_path / "models") as address:
            client = Client(address)
            assert client.get("/", Host="pictures.example", Origin="https://pictures.example").status == 200
            assert client.get("/", Host="pictures.example.org").status == 403


class TestModels:
    def test_those_that_are_named_come_first(self, visitors: Callable[..., Visitor], tmp_path: Path) -> None:
        with served("--model", EMBEDDED[-1], "--model", EMBEDDED[0], models=tmp_path / "models") as address:
            page = visitors(address).page
            model: Locator = page.get_by_label("Model").first
            expect(model).to_have_value(EMBEDDED[-1])
            page.close()


class TestLooks:
    @pytest.mark.parametrize("tab", ["Generate", "Compare", "Grid", "Reconstruct"])
    @pytest.mark.parametrize("size", SIZES)
    def test_nothing_overlaps_or_scrolls_sideways(
        self, visitors: Callable[..., Visitor], size: tuple[int, int], tab: str
    ) -> None:
        visitor = visitors(viewport={"width": size[0], "height": size[1]})
        page = visitor.page
        page.get_by_role("tab", name=tab).click()
        main = page.locator("button.go:visible")
        box = box_of(main)
        assert box["y"] + box["height"] <= size[1]
        visitor.fits(size[0])
        if tab == "Compare":
            page.wait_for_function("document.querySelector('#side-b [type=checkbox]')?.checkVisibility()")
        hidden = page.evaluate(_COVERED)
        assert not hidden
        crossed = page.evaluate(_CROSSED)
        assert not crossed
        visitor.sees("looks", whole=True)

    @pytest.mark.parametrize("tab", ["Generate", "Compare", "Grid", "Reconstruct"])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_contrast_and_labels(self, visitors: Callable[..., Visitor], scheme: str, tab: str) -> None:
        from axe_playwright_python.sync_playwright import Axe

        visitor = visitors(color_scheme=scheme)
        if tab == "Generate":
            visitor.chooses("storybook-sdxl")
            visitor.draws(LONG)
            visitor.page.get_by_role("button", name="Use as init image").click()
            expect(visitor.page.locator("#mask canvas")).to_be_visible()
            expect(visitor.snippet("shell")).to_be_visible()
        visitor.page.get_by_role("tab", name=tab).click()
        visitor.page.wait_for_timeout(500)  # until what fades in has its own colours
        visitor.sees("colours", whole=True)
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()


# Texts of controls that are seen, and lie over each other, or reach out of what they stand in.
_CROSSED = """
() => {
  const seen = [...document.querySelectorAll("label, label span, [data-testid=block-info], .notes p, .tools, .slider")].filter(
    (each) => each.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && each.getBoundingClientRect().width > 2
  );
  const found = [];
  for (const one of seen) {
    const a = one.getBoundingClientRect();
    const around = one.closest(".settings, .inputs, .output")?.getBoundingClientRect();
    if (around && (a.right > around.right + 1 || a.left < around.left - 1)) found.push("reaches out: " + one.outerHTML.slice(0, 200));
    for (const other of seen) {
      if (one === other || one.contains(other) || other.contains(one)) continue;
      const b = other.getBoundingClientRect();
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 2 && down > 2) found.push(one.outerHTML.slice(0, 200) + " crosses " + other.outerHTML.slice(0, 200));
    }
  }
  return found;
}
"""

# What can be used, but something else lies over the middle of it.
_COVERED = """
() => [...document.querySelectorAll("button, input, textarea, a")].filter((each) => {
  if (!each.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) return false;
  each.scrollIntoView({ block: "center" });
  const box = each.getBoundingClientRect();
  if (box.width < 2 || box.height < 2 || getComputedStyle(each).pointerEvents === "none") return false;
  const there = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return there && !each.contains(there) && !there.contains(each) && !each.closest("label")?.contains(there);
}).map((each) => each.outerHTML.slice(0, 200))
"""
