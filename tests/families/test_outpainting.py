"""Outpainting: what lies around a picture is drawn, and the picture keeps its own pixels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vinograph import Pipeline, RequestError
from vinograph.cli.again import read_recipe, with_recipe
from vinograph.families.outpainting import border_mask, enlarge, lay_out
from vinograph.families.sizes import SizeLimits
from vinograph.images import Size
from vinograph.request import GivenArguments

MODEL = "storybook-sdxl"
PROMPT = "a yellow boat on the sea at sunset"
SIZES = SizeLimits(size_multiple=8, minimum_size=64, maximum_size=512, native_size=256)
BORDERS = (64, 0, 32, 16)


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def boat(pipe: Pipeline) -> Image.Image:
    picture: Image.Image = pipe(PROMPT, seed=7).images[0]
    return picture


def values(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.int16)


class TestLayout:
    def test_the_picture_keeps_its_size(self) -> None:
        layout = lay_out(SIZES, Size(256, 200), BORDERS)
        assert layout.inner == Size(256, 200)
        assert layout.size == Size(272, 296)

    def test_what_is_no_multiple_is_cut(self) -> None:
        assert lay_out(SIZES, Size(250, 203), BORDERS).inner == Size(248, 200)

    def test_a_large_picture_shrinks_in_its_shape(self) -> None:
        layout = lay_out(SIZES, Size(2000, 4000), (128, 0, 0, 0))
        assert layout.inner == Size(192, 384)
        assert layout.size == Size(192, 512)

    def test_in_a_size_that_is_given(self) -> None:
        assert lay_out(SIZES, Size(256, 256), BORDERS, Size(256, 384)).inner == Size(240, 288)

    @pytest.mark.parametrize("borders", [(256, 0, 256, 0), (0, 512, 0, 0)])
    def test_no_room_for_the_picture(self, borders: tuple[int, int, int, int]) -> None:
        with pytest.raises(RequestError, match="no room for the picture in 512x512; add at most 504 pixels in width"):
            lay_out(SIZES, Size(256, 256), borders)

    def test_a_size_given_by_its_own_result_is_laid_out_alike(self) -> None:
        first = lay_out(SIZES, Size(250, 203), BORDERS)
        assert lay_out(SIZES, Size(250, 203), BORDERS, first.size) == first


class TestMask:
    LAYOUT = lay_out(SIZES, Size(128, 128), BORDERS)

    def test_it_covers_the_borders_and_the_overlap(self) -> None:
        mask = values(border_mask(self.LAYOUT))
        assert mask.shape == (144, 224)
        kept = np.zeros_like(mask, bool)
        kept[0:120, 96:176] = True  # overlaps of 32, 0, 16 and 8: half a border, at most an eighth of 256
        assert (mask[kept] == 0).all()
        assert (mask[~kept] == 255).all()

    def test_what_was_painted_is_in_it(self) -> None:
        painted = Image.new("L", (128, 128))
        painted.paste(255, (60, 50, 70, 60))
        mask = values(border_mask(self.LAYOUT, painted))
        assert (mask[50:60, 124:134] == 255).all()
        assert mask[45, 120] == 0

    def test_the_border_begins_with_the_edges(self) -> None:
        picture = Image.new("RGB", (128, 128), "red")
        picture.paste("blue", (0, 0, 4, 128))
        enlarged = enlarge(picture, self.LAYOUT)
        assert enlarged.getpixel((0, 5)) == (0, 0, 255)
        assert enlarged.getpixel((220, 5)) == (255, 0, 0)


class TestDrawing:
    def test_the_picture_keeps_its_pixels(self, pipe: Pipeline, boat: Image.Image) -> None:
        result = pipe(PROMPT, image=boat, extend=BORDERS, seed=1, num_images_per_prompt=2)
        assert [each.size for each in result.images] == [(352, 272)] * 2
        for each in result.images:
            inside = values(each)[:256, 64:320]
            assert (inside[:248, 32:-16] == values(boat)[:248, 32:-16]).all()
            border = values(each)[:, :64]
            assert border.std() > 5
        assert not (values(result.images[0]) == values(result.images[1]))[:, :64].all()
        assert not result.warnings

    def test_it_passes_over_into_the_picture(self, pipe: Pipeline, boat: Image.Image) -> None:
        """At the picture's left edge, columns differ no more than within a picture, but for noise."""
        drawn = values(pipe(PROMPT, image=boat, extend=BORDERS, seed=1, num_inference_steps=8).images[0])
        steps = np.abs(np.diff(drawn[:224], axis=1)).mean(axis=(0, 2))
        assert steps[56:104].max() < 3 * np.median(steps) + 2

    def test_what_was_painted_is_drawn_anew_too(self, pipe: Pipeline, boat: Image.Image) -> None:
        mask = Image.new("L", boat.size)
        mask.paste(255, (100, 40, 180, 220))
        given: dict[str, Any] = {"extend": (0, 0, 64, 0), "seed": 1, "strength": 1.0}
        result = pipe("a red house on a snowy hill at night", image=boat, mask_image=mask, **given)
        changed = np.abs(values(result.images[0])[:, :256] - values(boat)).mean(axis=2)
        assert changed[60:200, 120:160].mean() > 10
        assert (changed[:, :90] == 0).all()

    def test_latents_are_of_the_enlarged_picture(self, pipe: Pipeline, boat: Image.Image) -> None:
        result = pipe(PROMPT, image=boat, extend=BORDERS, seed=1, output_type="latent")
        assert np.asarray(result.images).shape == (1, 4, 34, 44)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"extend": "60,0,5,0"}, "this model draws multiples of 8, the nearest: 64,0,8,0"),
            ({"extend": (8, 8)}, "give pixels for left, top, right and bottom, such as 64,0,64,0"),
            ({"extend": 0}, "not all of them 0"),
            ({"extend": "-8,0,0,0"}, "each from 0 to 512"),
            ({"extend": 8, "padding_mask_crop": 8, "mask_image": "no.png"}, "give extend or padding_mask_crop, not"),
            ({"extend": 504}, "no room for the picture"),
            ({"extend": 8, "hires": 2.0}, "give hires or image, not both"),
        ],
    )
    def test_what_it_refuses(self, pipe: Pipeline, boat: Image.Image, given: dict[str, Any], message: str) -> None:
        with pytest.raises(RequestError, match=message):
            pipe(PROMPT, image=boat, **given)

    def test_it_needs_a_picture(self, pipe: Pipeline) -> None:
        with pytest.raises(RequestError, match="extend needs image"):
            pipe(PROMPT, extend=8)


def test_the_command_draws_it_and_its_file_says_how(pipe: Pipeline, boat: Image.Image, tmp_path: Path) -> None:
    boat.resize((251, 203)).save(tmp_path / "boat.png")
    options = ["--extend", "0,64,0,0", "--image", "boat.png", "--seed", "3", "--output", "drawn.png"]
    command = [sys.executable, "-m", "vinograph", "generate", PROMPT, "--model", MODEL, *options]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (248, 264)
        in_python = pipe(PROMPT, image=tmp_path / "boat.png", extend=(0, 64, 0, 0), seed=3).images[0]
        assert (values(drawn) == values(in_python)).all()
        recipe = read_recipe(str(tmp_path / "drawn.png"))
        given, warnings = with_recipe(pipe, recipe, GivenArguments({"image": tmp_path / "boat.png"}))
        assert given.values["extend"] == [0, 64, 0, 0]
        assert not warnings
        assert (values(drawn) == values(pipe(**given.values).images[0])).all()
