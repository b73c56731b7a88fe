"""Grids of pictures: values as they are typed, the cells' requests, and the tab that draws them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.web.conftest import Visitor, box_of
from vinograph import Pipeline
from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.images import read_metadata
from vinograph.request import arguments_of
from vinograph.web.grid_axes import (
    ADAPTERS,
    MODEL,
    NO_AXIS,
    PROMPT,
    SIZE,
    Axis,
    Base,
    cell_request,
    check_axes,
    hint,
    parse_axis,
    settings,
)
from vinograph.web.model_pool import ModelPool

SDXL, WUERSTCHEN = "storybook-sdxl", "storybook-wuerstchen"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VINOGRAPH_MODELS", str(tmp_path_factory.mktemp("models")))
        return ModelPool({}, "CPU")


@pytest.fixture(scope="module")
def pipe(models: ModelPool) -> Pipeline:
    return models.get(SDXL)


def values(pipe: Pipeline, setting: str, text: str) -> list[Any]:
    return list(parse_axis(pipe, setting, text, [SDXL, WUERSTCHEN]).values)


class TestSettings:
    @pytest.mark.parametrize("model", [SDXL, WUERSTCHEN, "storybook-pixart"])
    def test_they_are_those_that_the_model_takes(self, models: ModelPool, model: str) -> None:
        pipe = models.get(model)
        named = {name for _, name in settings(pipe, adapters=True)}
        family = registry.family(pipe.model.manifest.family)
        assert {"seed", "steps", "guidance_scale", "scheduler", "strength", "negative_prompt"} <= named
        assert {PROMPT, MODEL, SIZE, ADAPTERS} <= named
        declared = arguments_of(family.request)
        offered = {name for name, argument in family.options.items() if declared[argument].on_page}
        assert offered - {"mask", "vae", "extend"} <= named
        assert ("decoder_steps" in named) == (model == WUERSTCHEN)
        assert not {"count", "image", "mask"} & named

    def test_each_has_an_example_that_can_be_used(self, models: ModelPool) -> None:
        for model in (SDXL, WUERSTCHEN):
            pipe = models.get(model)
            for _, name in settings(pipe, adapters=True):
                assert values(pipe, name, hint(pipe, name, [SDXL, WUERSTCHEN]))


class TestValues:
    @pytest.mark.parametrize(
        ("setting", "text", "expected"),
        [
            ("steps", "1, 2,4", [1, 2, 4]),
            ("steps", "1-4", [1, 2, 3, 4]),
            ("steps", "1-8 (+3)", [1, 4, 7]),
            ("steps", "8-2 (-3), 1", [8, 5, 2, 1]),
            ("steps", "4-2", [4, 3, 2]),
            ("steps", "1-10 [4]", [1, 4, 7, 10]),
            ("steps", "2, 2, 1-3", [2, 1, 3]),
            ("guidance_scale", "1-2 (+0.25)", [1, 1.25, 1.5, 1.75, 2]),
            ("guidance_scale", "0-1 (+0.1)", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
            ("strength", "0.2-0.8 [3]", [0.2, 0.5, 0.8]),
            ("seed", "7, 18446744073709551615", [7, 18446744073709551615]),
            ("scheduler", "euler a, DPM++ 2M Karras", ["euler a", "DPM++ 2M Karras"]),
            ("negative_prompt", '"a, b", c', ["a, b", "c"]),
            (SIZE, "256x256, 320 x 256", [(256, 256), (320, 256)]),
            (PROMPT, 'red, "blue, bright"', ["red", "blue, bright"]),
            (MODEL, SDXL, [SDXL]),
        ],
    )
    def test_they_are_read(self, pipe: Pipeline, setting: str, text: str, expected: list[Any]) -> None:
        assert values(pipe, setting, text) == expected

    @pytest.mark.parametrize(
        ("setting", "text", "words"),
        [
            ("steps", "", "Steps has no values; give some between commas, such as 1, 2, 4-8 (+2)"),
            ("steps", "many", "Steps has the value 'many'; give numbers, or a range such as"),
            ("steps", "0", "Steps is 0; give a whole number from 1 to 1000"),
            ("steps", "1.5", "Steps is 1.5; give a whole number"),
            ("steps", "1-8 (-1)", "whose step leads nowhere"),
            ("steps", "1-8 (+0)", "whose step leads nowhere"),
            ("seed", "1-9999999999999", "of 9,999,999,999,999 values; a grid has at most 100"),
            ("strength", "0.1-0.2 [9000]", "of 9,000 values; a grid has at most 100"),
            ("scheduler", "nonsense", "nonsense"),
            (SIZE, "big", "Size has the value 'big'; give width and height, such as 512x256"),
            (MODEL, "sdxl", f"the page has no model 'sdxl'; it has {SDXL}, {WUERSTCHEN}"),
            ("decoder_steps", "1", f"{SDXL} takes no Decoder steps; choose another setting"),
            ("steps", "1" * 30_000, "have 30,000 characters; give at most 20,000"),
        ],
    )
    def test_others_are_refused(self, pipe: Pipeline, setting: str, text: str, words: str) -> None:
        with pytest.raises(RequestError, match=re.escape(words)):
            values(pipe, setting, text)

    def test_too_many_cells(self) -> None:
        with pytest.raises(RequestError, match="that is 110 pictures; a grid has at most 100"):
            check_axes(Axis("steps", tuple(range(1, 12))), Axis("seed", tuple(range(10))))
        check_axes(Axis("steps", tuple(range(1, 11))), Axis("seed", tuple(range(10))))

    def test_what_makes_no_grid(self) -> None:
        with pytest.raises(RequestError, match="choose a setting for an axis"):
            check_axes(NO_AXIS, NO_AXIS)
        with pytest.raises(RequestError, match="both axes have Steps"):
            check_axes(Axis("steps", (1,)), Axis("steps", (2,)))


class TestCells:
    BASE = Base(SDXL, "a red house and a red boat", {"seed": 3, "guidance_scale": 2.0}, size=(320, 256))

    def test_the_axes_change_what_they_name(self, models: ModelPool) -> None:
        prompt = Axis(PROMPT, ("red", "blue"))
        request = cell_request(models, self.BASE, [(Axis("steps", (1, 4)), 4), (prompt, "blue")])
        assert request.arguments == {
            "prompt": "a blue house and a blue boat",
            "seed": 3,
            "guidance_scale": 2.0,
            "num_inference_steps": 4,
            "width": 320,
            "height": 256,
        }

    def test_another_model_gets_what_it_takes(self, models: ModelPool) -> None:
        """By the option's name: the steps of one family are another argument than those of the other."""
        base = Base(SDXL, "a red house", {"seed": 3, "steps": 2, "long_prompt": "chunks"})
        request = cell_request(models, base, [(Axis(MODEL, (SDXL, WUERSTCHEN)), WUERSTCHEN), (NO_AXIS, None)])
        assert request.model == WUERSTCHEN
        assert request.arguments == {"prompt": "a red house", "seed": 3, "prior_num_inference_steps": 2}

    @pytest.mark.parametrize(
        ("axis", "value", "words"),
        [
            (Axis(SIZE, ((300, 256),)), (300, 256), "width is 300; this model draws multiples of"),
            (Axis("strength", (0.5,)), 0.5, "Strength needs Image: a picture to start from"),
            (Axis(PROMPT, ("green", "blue")), "blue", "the prompt doesn't say 'green', which Prompt S/R is to replace"),
            (Axis(ADAPTERS, (0.5,)), 0.5, "Adapter weight is an axis, and there is no adapter"),
            (Axis("decoder_steps", (3,)), 3, f"{SDXL} takes no Decoder steps; leave this model or this setting out"),
        ],
    )
    def test_what_doesnt_fit_is_said_before_anything_is_drawn(
        self, models: ModelPool, axis: Axis, value: Any, words: str
    ) -> None:
        with pytest.raises(RequestError, match=re.escape(words)):
            cell_request(models, self.BASE, [(axis, value), (NO_AXIS, None)])


def choose(visitor: Visitor, axis: str, setting: str, text: str) -> None:
    visitor.page.locator(f"#axis-{axis} input").click()
    visitor.page.locator(f"#axis-{axis}").get_by_role("option", name=setting, exact=True).click()
    visitor.page.locator(f"#values-{axis} textarea, #values-{axis} input").fill(text)


def open_tab(visitor: Visitor) -> None:
    visitor.page.get_by_role("tab", name="Grid").click()
    there = visitor.page.get_by_role("tabpanel").filter(has=visitor.page.locator("#generate-grid"))
    there.get_by_label("Model", exact=True).click()
    there.get_by_role("option", name=SDXL, exact=True).click()
    expect(there.get_by_label("number input for Steps", exact=True)).to_have_value("1")


def test_a_grid_is_drawn_looked_at_and_saved(visitor: Visitor, tmp_path: Path) -> None:
    """All in one visit: drawing the cells takes longer than looking at them."""
    page = visitor.page
    open_tab(visitor)
    page.fill("#grid-prompt textarea", "a red house")
    page.locator("#grid-seed textarea, #grid-seed input").fill("5")
    choose(visitor, "x", "Steps", "1-2")
    choose(visitor, "y", "Prompt S/R", "red, green")
    page.click("#generate-grid")
    expect(page.locator("#grid-progress .status")).to_contain_text(re.compile(r"Image \d of 4"))
    link = page.locator("#grid").get_by_role("link", name="Download grid PNG")
    expect(link).to_be_visible()
    expect(page.locator("#grid-progress .status")).to_be_hidden()
    expect(page.locator("#grid thead th")).to_have_text(["Steps: 1", "Steps: 2"])
    expect(page.locator("#grid tbody th")).to_have_text(["red", "green"])
    cells = page.locator("#grid td button.view")
    expect(cells).to_have_count(4)
    page.wait_for_function("[...document.querySelectorAll('#grid td img')].every((each) => each.naturalWidth === 256)")
    for box in map(box_of, cells.all()):
        assert box["width"] == pytest.approx(box["height"], abs=1)
    visitor.sees("grid", whole=True)

    with page.expect_download() as download:
        link.click()
    download.value.save_as(tmp_path / "grid.png")
    record = read_metadata(tmp_path / "grid.png")
    assert record is not None
    assert record["grid"] == {
        "x": {"setting": "Steps", "values": ["Steps: 1", "Steps: 2"]},
        "y": {"setting": "Prompt S/R", "values": ["red", "green"]},
    }
    assert record["request"]["seed"] == 5
    with Image.open(tmp_path / "grid.png") as sheet:
        assert 'X Type: Steps, X Values: "Steps: 1, Steps: 2"' in sheet.info["parameters"]
        assert sheet.width > 2 * 256
        assert np.asarray(sheet.convert("L"))[:30].min() < 80  # the title's ink

    cells.nth(3).click()
    dialog = page.locator("dialog.viewer")
    expect(dialog.locator(".caption")).to_contain_text(re.compile(r"Steps: 2 · green\s+a green house\s+Seed 5"))
    expect(dialog).to_contain_text("4 of 4")
    page.keyboard.press("Escape")
    page.locator("#grid .sheet button.view").click()
    expect(dialog.locator(".caption")).to_contain_text("The whole grid")
    visitor.sees("sheet")


def test_it_stops_and_keeps_what_is_drawn(visitor: Visitor) -> None:
    page = visitor.page
    open_tab(visitor)
    choose(visitor, "x", "Steps", "1, 120")  # the first is quick, and the second lasts until it is stopped
    page.click("#generate-grid")
    expect(page.locator("#grid td button.view")).to_have_count(1)
    page.click("#stop-grid")
    expect(page.locator("#generate-grid")).to_be_visible()
    expect(page.locator("#grid .facts")).to_contain_text(re.compile("^1 of 2 images"))
    expect(page.locator("#grid .sheet img")).to_be_visible()


def test_what_doesnt_fit_is_said(visitor: Visitor) -> None:
    open_tab(visitor)
    choose(visitor, "x", "Seed", "1-50")
    choose(visitor, "y", "Steps", "1-3")
    visitor.page.click("#generate-grid")
    visitor.reads("#grid-notes", "that is 150 pictures; a grid has at most 100")
    choose(visitor, "y", "Steps", "0, 1")
    visitor.page.click("#generate-grid")
    visitor.reads("#grid-notes", "Steps is 0; give a whole number from 1 to 1000")
    expect(visitor.page.locator("#grid img")).to_have_count(0)
