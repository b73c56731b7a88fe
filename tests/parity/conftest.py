"""Checkpoints and pipelines that are built once for all comparisons with diffusers."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from tests.checkpoints import (
    DEEP,
    PIXART,
    PIXART_256,
    PIXART_512,
    PIXART_LCM,
    PIXART_SIGMA,
    SDXL_TINY,
    SDXL_TURBO,
    SHALLOW,
    SMALL,
    PixArtShape,
    SdxlShape,
)
from tests.parity import pixart_pairs, sdxl_pairs
from tests.parity.pairs import Pair, make_pair
from tests.parity.pixart_pairs import PixArtPair
from tests.parity.sdxl_pairs import SdxlPair

# Seeds whose weights magnify neither latents nor rounding errors.
MODELS: dict[str, Any] = {
    "small": (SMALL, "combined", 0),
    "deep": (DEEP, "split", 1),
    "shallow": (SHALLOW, "combined", 0),
}

# Like SDXL base, like SDXL-Turbo, and one whose UNet gets the guidance scale.
SDXL: Mapping[str, tuple[SdxlShape, int]] = {
    "base": (SDXL_TINY, 0),
    "turbo": (SDXL_TURBO, 1),
    "consistency": (replace(SDXL_TINY, guidance_width=12, prediction_type="v_prediction"), 0),
}


# Like the models of 1024, its consistency model, those of 512 and 256, and Sigma, with smaller
# native sizes.
PIXARTS: Mapping[str, tuple[PixArtShape, int]] = {
    "1024": (PIXART, 0),
    "consistency": (PIXART_LCM, 0),
    "512": (PIXART_512, 0),
    "256": (PIXART_256, 0),
    "sigma": (PIXART_SIGMA, 0),
    "without variance": (replace(PIXART_256, out_channels=4), 0),
}


@pytest.fixture(scope="session")
def open_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    torch.set_num_threads(1)  # threads don't help such tiny models

    @cache
    def open_one(name: str) -> Pair:
        return make_pair(tmp_path_factory.mktemp(name), *MODELS[name])

    return open_one


@pytest.fixture(scope="session")
def open_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SdxlPair]:
    """Both pipelines of a small SDXL in :data:`SDXL`, with both VAEs and a native size of 64."""
    torch.set_num_threads(1)

    @cache
    def open_one(name: str) -> SdxlPair:
        return sdxl_pairs.make_pair(tmp_path_factory.mktemp(name), *SDXL[name])

    return open_one


@pytest.fixture(scope="session")
def open_pixart(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PixArtPair]:
    """Both pipelines of a small PixArt in :data:`PIXARTS`, with both VAEs."""
    torch.set_num_threads(1)

    @cache
    def open_one(name: str) -> PixArtPair:
        return pixart_pairs.make_pair(tmp_path_factory.mktemp(name), *PIXARTS[name])

    return open_one


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest, open_pair: Callable[[str], Pair]) -> Pair:
    """Both pipelines of each small Würstchen, which differ in sizes, layout and text length."""
    return open_pair(request.param)


@pytest.fixture
def small(open_pair: Callable[[str], Pair]) -> Pair:
    """Both pipelines of one Würstchen, for tests that don't depend on the architecture."""
    return open_pair("small")
