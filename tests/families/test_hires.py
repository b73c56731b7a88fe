"""Hires fix: two drawings in one call are the same to the bit as two calls by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from vinograph import Pipeline, RequestError, Result, Step
from vinograph.families import autoencoder

PROMPT = "a red house"
SDXL, PIXART = "sdxl", "pixart"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pipeline]:
    folder = tmp_path_factory.mktemp("hires")
    paths = {
        SDXL: save_sdxl_bundle(folder / SDXL).path,
        PIXART: save_pixart_bundle(folder / PIXART).path,
        "wuerstchen": save_bundle(folder / "wuerstchen").path,
    }
    pipes = {name: Pipeline.from_pretrained(path, precision="f32") for name, path in paths.items()}
    return pipes.__getitem__


def lanczos(images: list[Image.Image], width: int, height: int) -> list[Image.Image]:
    return [each.resize((width, height), Image.Resampling.LANCZOS) for each in images]


def same(one: Result, other: Result) -> None:
    assert len(one.images) == len(other.images)
    for mine, theirs in zip(one.images, other.images, strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(theirs))


@pytest.mark.parametrize(("name", "by_hand"), [(SDXL, {}), (PIXART, {"use_resolution_binning": False})])
def test_it_equals_two_calls(opened: Callable[[str], Pipeline], name: str, by_hand: dict[str, Any]) -> None:
    pipe = opened(name)
    size: dict[str, Any] = {"height": 128, "width": 192}
    given: dict[str, Any] = {"num_inference_steps": 2, "seed": 5, "num_images_per_prompt": 2}
    once = pipe(PROMPT, hires=1.5, hires_steps=3, hires_strength=0.7, **size, **given)
    first = pipe(PROMPT, **size, **given)
    larger: dict[str, Any] = {"height": 192, "width": 288}
    second = {**given, **by_hand, **larger, "num_inference_steps": 3, "strength": 0.7}
    same(once, pipe(PROMPT, image=lanczos(first.images, 288, 192), **second))
    assert once.seeds == (5, 6)
    assert once.images[0].size == (288, 192)
    assert (once.request.height, once.request.width) == (128, 192)  # with hires, they draw it again


def test_from_latents(opened: Callable[[str], Pipeline]) -> None:
    pipe = opened(SDXL)
    given: dict[str, Any] = {"num_inference_steps": 2, "seed": 5}
    once = pipe(PROMPT, hires=1.5, hires_upscaler="latent", hires_strength=0.7, height=128, width=128, **given)
    first = pipe(PROMPT, output_type="latent", height=128, width=128, **given).images
    latents = torch.nn.functional.interpolate(torch.tensor(first), size=(24, 24), mode="bilinear").numpy()
    same(once, pipe(PROMPT, image=latents, strength=0.7, **given))


def test_stages_have_names_and_timings(opened: Callable[[str], Pipeline]) -> None:
    seen = list(opened(SDXL).stream(PROMPT, hires=2, hires_strength=0.5, height=64, width=64, seed=1))
    stages = [each.stage for each in seen if isinstance(each, Step)]
    expected = ["text", "unet", "vae", "hires text", "hires vae encoder", "hires unet", "hires vae"]
    assert [*dict.fromkeys(stages)] == expected
    result = seen[-1]
    assert isinstance(result, Result)
    assert {"unet", "upscale", "hires unet", "hires vae"} <= result.timings.keys()
    assert len([stage for stage in stages if stage == "hires unet"]) == 2  # half of the four steps
    assert isinstance(result.request.record()["hires"], float)


def test_the_larger_drawing_is_decoded_in_tiles(
    opened: Callable[[str], Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vinograph.families.autoencoder.MAX_WHOLE_AREA", 256 * 300)
    monkeypatch.setitem(autoencoder._TILE_SIDES, "full", 256)
    result = opened(SDXL)(PROMPT, hires=1.5, height=256, width=256, vae="full", seed=1)
    assert [each for each in result.warnings if each.startswith("384x384 is decoded in 4 tiles of 256 pixels")]


def test_a_factor_of_one_draws_once(opened: Callable[[str], Pipeline]) -> None:
    pipe = opened(SDXL)
    given: dict[str, Any] = {"height": 64, "width": 64, "seed": 1}
    same(pipe(PROMPT, hires=1, **given), pipe(PROMPT, **given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hires": 2, "image": Image.new("RGB", (64, 64))}, "give hires or image, not both"),
        ({"hires": 2, "denoising_end": 0.5}, "give hires or denoising_end, not both"),
        ({"hires": 8, "height": 128, "width": 64}, r"hires is 8, which makes 512x1024 of 64x128; .*: give at most 4,"),
        ({"hires": 0.5}, "hires is 0.5; give a number from 1 to 8"),
        ({"hires_strength": 0.5}, "hires_strength needs hires"),
        ({"hires": 2, "hires_upscaler": "esrgan"}, "give one of lanczos, latent"),
        ({"hires": 2, "hires_steps": 1, "hires_strength": 0.3}, "1 steps at strength 0.3 leave none to do"),
    ],
)
def test_refused_before_anything_is_drawn(
    opened: Callable[[str], Pipeline], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        opened(SDXL).stream(PROMPT, **given)


def test_wuerstchen_has_none(opened: Callable[[str], Pipeline]) -> None:
    with pytest.raises(RequestError, match="takes no hires"):
        opened("wuerstchen")(PROMPT, hires=2)
