"""`vinograph generate --again`: a picture is drawn again from what its file says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from tests.cli.conftest import Run, files_here
from vinograph.images import read_metadata
from vinograph.picture_texts import parameters_text

MAKE: dict[str, Callable[[Path], Any]] = {
    "sdxl": save_sdxl_bundle,
    "pixart": save_pixart_bundle,
    "wuerstchen": save_bundle,
}
PROMPT = 'a "red" house, (small): on a hill'


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of each family."""
    folder = tmp_path_factory.mktemp("again")
    for name, make in MAKE.items():
        make(folder / name).path.rename(folder / f"tiny-{name}" if name != "wuerstchen" else folder / "tiny")
    return folder


@pytest.fixture(autouse=True)
def _models(bundles: Path, _clean_place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(bundles))


def pixels(file: str) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def text_of(file: str) -> str:
    with Image.open(file) as picture:
        text = parameters_text(picture)
    assert text is not None
    return text


def with_text(file: str, text: str) -> None:
    """A picture that says what A1111 says, and nothing of ours."""
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(file, pnginfo=chunk)


@pytest.mark.parametrize("model", ["tiny-sdxl", "tiny-pixart", "tiny"])
class TestOurs:
    def test_it_is_the_same_to_the_bit(self, vinograph: Run, model: str) -> None:
        options = ("--size", "256x128", "--steps", 3, "--guidance-scale", 2, "--negative-prompt", "fog, rain")
        assert vinograph("generate", PROMPT, "--model", model, *options, "--output", "a.png").code == 0
        done = vinograph("generate", "--again", "a.png", "--output", "b.png")
        assert done.code == 0, done.err
        assert "left out" not in done.err
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        assert read_metadata(Path("b.png")) == read_metadata(Path("a.png"))
        assert text_of("b.png") == text_of("a.png")


class TestOtherFiles:
    def test_options_take_precedence(self, vinograph: Run) -> None:
        vinograph("generate", PROMPT, "--model", "tiny-sdxl", "--seed", 7, "--steps", 3, "--output", "a.png")
        other = ("--seed", 8, "--size", "128x64")
        assert vinograph("generate", "a boat", "--again", "a.png", *other, "--output", "b.png").code == 0
        request = (read_metadata(Path("b.png")) or {})["request"]
        assert (request["prompt"], request["seed"], request["num_inference_steps"]) == ("a boat", 8, 3)
        assert pixels("b.png").shape == (64, 128, 3)

    def test_hires(self, vinograph: Run) -> None:
        options = ("--hires", 2, "--hires-steps", 3, "--hires-upscaler", "latent", "--vae-tiling", "off")
        vinograph("generate", PROMPT, "--model", "tiny-sdxl", *options, "--output", "a.png")
        assert "Denoising strength: 0.35, Hires upscale: 2, Hires steps: 3, Hires upscaler: Latent" in text_of("a.png")
        assert vinograph("generate", "--again", "a.png", "--output", "b.png").code == 0
        assert pixels("b.png").shape == (128, 128, 3)
        assert np.array_equal(pixels("a.png"), pixels("b.png"))

    def test_a_jpeg_says_it_as_a1111_does(self, vinograph: Run) -> None:
        options = ("--model", "tiny-sdxl", "--steps", 3, "--guidance-scale", 2, "--seed", 7, "--size", "128x64")
        vinograph("generate", f"{PROMPT} 漢", *options, "--output", "a.jpg")
        assert text_of("a.jpg").startswith(f"{PROMPT} 漢\nSteps: 3, Sampler: Euler, CFG scale: 2, Seed: 7, ")
        vinograph("generate", f"{PROMPT} 漢", *options, "--output", "a.png")
        done = vinograph("generate", "--again", "a.jpg", "--output", "b.png")
        assert done.code == 0, done.err
        assert np.array_equal(pixels("a.png"), pixels("b.png"))

    def test_what_a1111_says(self, vinograph: Run) -> None:
        text = (
            "a <lora:pixel:0.8>house\nNegative prompt: fog\nSteps: 3, Sampler: DPM++ 2M Karras, CFG scale: 2.5, "
            "Seed: 7, Size: 128x64, Model hash: 31e35c80fc, Model: unheard-of, Clip skip: 2, Version: v1.9"
        )
        with_text("a.png", text)
        done = vinograph("generate", "--again", "a.png", "--model", "tiny-sdxl", "--output", "b.png")
        assert done.code == 0, done.err
        said = "not followed, of what a.png says: the adapter pixel (weight 0.8); Clip skip: 2"
        assert f"warning: {said}\n" in done.err
        options = ("--steps", 3, "--guidance-scale", 2.5, "--seed", 7, "--size", "128x64", "--negative-prompt", "fog")
        sampler = ("--scheduler", "dpm++ 2m karras")
        vinograph("generate", "a house", *options, *sampler, "--model", "tiny-sdxl", "--output", "c.png")
        assert np.array_equal(pixels("b.png"), pixels("c.png"))
        assert "Sampler: DPM++ 2M Karras, " in text_of("c.png")

    def test_a_sampler_that_is_not_known_here(self, vinograph: Run) -> None:
        with_text("a.png", "a house\nSteps: 3, Sampler: DPM fast, Seed: 7, Size: 128x64")
        done = vinograph("generate", "--again", "a.png", "--model", "tiny-sdxl", "--output", "b.png")
        assert done.code == 0, done.err
        assert "not followed, of what a.png says: Sampler: DPM fast" in done.err

    def test_a_model_of_another_family(self, vinograph: Run) -> None:
        vinograph("generate", PROMPT, "--model", "tiny-sdxl", "--seed", 7, "--size", "128x128", "--output", "a.png")
        done = vinograph("generate", "--again", "a.png", "--model", "tiny", "--output", "b.png")
        assert done.code == 0, done.err
        assert "warning: models of the family wuerstchen take no " in done.err
        assert "guidance_scale" in done.err

    def test_an_image_and_a_mask_are_asked_for(self, vinograph: Run) -> None:
        Image.new("RGB", (64, 64), "red").save("start.png")
        Image.new("L", (64, 64), 255).save("mask.png")
        files = ("--image", "start.png", "--mask", "mask.png")
        options = ("--model", "tiny-sdxl", *files, "--strength", 0.8, "--seed", 7)
        assert vinograph("generate", PROMPT, *options, "--output", "a.png").code == 0
        vinograph("generate", "--again", "a.png", "--output", "b.png").fails(
            2, "it was drawn with image, mask_image", "give it again: --image FILE --mask FILE"
        )
        assert vinograph("generate", "--again", "a.png", *files, "--output", "b.png").code == 0
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        with_text("c.png", "a house\nSteps: 3, Seed: 1, Size: 64x64, Denoising strength: 0.5")
        vinograph("generate", "--again", "c.png", "--model", "tiny-sdxl").fails(2, "drawn with image", "--image FILE")


class TestRefused:
    def test_a_picture_that_says_nothing(self, vinograph: Run) -> None:
        Image.new("RGB", (8, 8)).save("a.png")
        vinograph("generate", "--again", "a.png").fails(2, "--again a.png: the picture doesn't say how it was drawn")
        vinograph("generate", PROMPT, "--model", "tiny-sdxl", "--no-metadata", "--output", "b.jpg")
        vinograph("generate", "--again", "b.jpg").fails(2, "doesn't say how it was drawn")

    def test_no_picture(self, vinograph: Run) -> None:
        Path("a.png").write_text("text")
        vinograph("generate", "--again", "a.png").fails(
            2, "--again: a.png is not a PNG, JPEG, WebP, AVIF, TIFF or GIF picture"
        )
        vinograph("generate", "--again", "b.png").fails(2, "--again: there is no file b.png")

    def test_a_model_that_is_not_here(self, vinograph: Run) -> None:
        for name in ("unheard-of", "some/where", "../tiny", "/etc"):
            with_text("a.png", f"a house\nSteps: 3, Seed: 1, Model: {name}")
            vinograph("generate", "--again", "a.png", "--output", "b.png").fails(3, name, "--model REF")
        with_text("a.png", "a house\nSteps: 3, Seed: 1, Size: 64x64")
        vinograph("generate", "--again", "a.png", "--output", "b.png").fails(3, "names no model", "--model REF")

    def test_its_own_file_is_kept(self, vinograph: Run) -> None:
        vinograph("generate", PROMPT, "--model", "tiny-sdxl")
        again = ("generate", "--again", "picture.png", "--seed", 8)
        vinograph(*again, "--output", "picture.png").fails(2, "is the picture that --again reads")
        assert vinograph(*again).out.startswith("picture-2.png")
        os.link("picture.png", "link.png")
        vinograph("generate", "--again", "picture.png", "--output", "link.png").fails(2, "name another with --output")

    @pytest.mark.parametrize(
        "record",
        [
            '{"model": "tiny-sdxl", "request": {"prompt": ["a", "b"], "seed": 1}}',
            '{"model": "tiny-sdxl", "request": {"prompt": 3}}',
            '{"model": "tiny-sdxl", "request": {"prompt": "a", "num_inference_steps": "many", "seed": 1}}',
            '{"model": "tiny-sdxl", "request": 7}',
            '{"model": "tiny-sdxl", "request": {}, "left_out": [1]}',
            '{"model": 1, "request": {}}',
            "[]",
            "{",
        ],
    )
    def test_records_that_make_no_sense(self, vinograph: Run, record: str) -> None:
        chunk = PngImagePlugin.PngInfo()
        chunk.add_itxt("vinograph", record)
        Image.new("RGB", (8, 8)).save("a.png", pnginfo=chunk)
        done = vinograph("generate", "--again", "a.png", "--output", "b.png")
        assert done.code == 2, done.err
        assert "Traceback" not in done.err
        assert files_here() == ["a.png"]

    def test_a_file_names_no_other_file(self, vinograph: Run) -> None:
        chunk = PngImagePlugin.PngInfo()
        chunk.add_itxt("vinograph", '{"model": "tiny-sdxl", "request": {"prompt": "a", "image": "a.png", "seed": 1}}')
        Image.new("RGB", (64, 64)).save("a.png", pnginfo=chunk)
        done = vinograph("generate", "--again", "a.png", "--output", "b.png")
        assert done.code == 0
        assert "take no image: left out of a.png's request" in done.err
        assert "vae encoder" not in done.err

    def test_a_prompt_too_long_for_exif_is_said(self, vinograph: Run) -> None:
        prompt = "a house " * 2000
        options = ("--negative-prompt", prompt, "--guidance-scale", 2, "--steps", 1, "--output", "a.jpg")
        done = vinograph("generate", prompt, "--model", "tiny-sdxl", *options)
        assert done.code == 0, done.err
        assert "the prompt is so long that a.jpg has no room for the text" in done.err
