"""Models whose UNet takes a mask and a masked picture, too, inpaint as in diffusers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.parity.pairs import assert_same_pictures
from tests.parity.sdxl_pairs import SdxlPair, mask, picture
from vinograph import RequestError

# 2/255 is promised; in f32 only rounding differs, so the tests demand far less.
BAR = 0.005 / 255
GUIDED: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 5.0}
MASKED: dict[str, Any] = {"image": picture(), "mask_image": mask()}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def pair(open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
    return open_sdxl("inpainting")


def same(pair: SdxlPair, prompt: Any = "a red house", **given: Any) -> None:
    assert_same_pictures(*pair.draw(prompt, **given), tolerance=BAR)


@pytest.mark.parametrize(("strength", "vae"), [(0.6, "full"), (0.9999, "full"), (1.0, "full"), (0.6, "tiny")])
def test_strengths(pair: SdxlPair, strength: float, vae: str) -> None:
    same(pair, **GUIDED, **MASKED, strength=strength, vae=vae)


def test_without_guidance(pair: SdxlPair) -> None:
    same(pair, num_inference_steps=3, guidance_scale=0.0, **MASKED, strength=0.8)


def test_defaults(pair: SdxlPair) -> None:
    same(pair, num_inference_steps=4, **MASKED)


def test_latents(pair: SdxlPair) -> None:
    latents = np.random.RandomState(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    same(pair, **GUIDED, **MASKED, latents=latents, strength=0.8)


def test_an_image_and_a_mask_of_other_sizes(pair: SdxlPair) -> None:
    same(pair, **GUIDED, height=64, width=64, image=picture(100, 80), mask_image=mask(90, 70), strength=0.8)


@pytest.mark.parametrize("seeds", [None, (5, 2)])
def test_several_pictures(pair: SdxlPair, seeds: tuple[int, ...] | None) -> None:
    def generators() -> Any:
        return torch.Generator().manual_seed(3) if seeds is None else [torch.Generator().manual_seed(s) for s in seeds]

    same(pair, **GUIDED, **MASKED, strength=1.0, generator=generators, num_images_per_prompt=2)


def test_any_picture_of_a_batch_is_reproducible_alone(pair: SdxlPair) -> None:
    both = pair.draw_ours(seed=3, num_images_per_prompt=2, **GUIDED, **MASKED)
    alone = pair.draw_ours(seed=4, **GUIDED, **MASKED)
    assert np.abs(both[1] - alone[0]).max() < BAR


def test_a_mask_for_each_picture(pair: SdxlPair) -> None:
    masks = [mask(), mask().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    given: dict[str, Any] = {"seed": 3, **GUIDED, "image": picture(), "strength": 1.0}
    both = pair.draw_ours(num_images_per_prompt=2, mask_image=masks, **given)
    assert np.abs(both[0] - pair.draw_ours(mask_image=masks[0], **given)[0]).max() < BAR


def test_padding_mask_crop(pair: SdxlPair) -> None:
    painted = np.zeros((80, 100), np.uint8)
    painted[20:41, 30:49] = 255
    given: dict[str, Any] = {"image": picture(100, 80), "mask_image": Image.fromarray(painted), "padding_mask_crop": 6}
    ours, theirs = pair.draw(**GUIDED, **given, height=64, width=64, strength=0.8, output_type="pil")
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("given", [{}, {"image": picture()}], ids=["text", "image"])
def test_without_a_mask_it_is_refused(pair: SdxlPair, given: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"this model is for inpainting alone.*--image FILE --mask FILE"):
        pair.ours("a red house", **given)


def test_latents_can_not_be_masked(pair: SdxlPair) -> None:
    with pytest.raises(RequestError, match="image is latents, from which a mask can't take"):
        pair.ours("a red house", image=np.zeros((1, 4, 8, 8), np.float32), mask_image=mask())
