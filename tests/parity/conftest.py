"""Checkpoints are built and converted once for all comparisons."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from tests.checkpoints import DEEP, SDXL_TINY, SDXL_TURBO, SHALLOW, SMALL, SdxlShape
from tests.parity import sdxl_pairs
from tests.parity.pairs import Pair, make_pair
from tests.parity.sdxl_pairs import SdxlPair

# The seeds are of weights that magnify neither the latents nor the rounding.
MODELS: dict[str, Any] = {
    "small": (SMALL, "combined", 0),
    "deep": (DEEP, "split", 1),
    "shallow": (SHALLOW, "combined", 0),
}

# As SDXL base, as SDXL-Turbo, and one whose UNet is told the guidance scale.
SDXL: Mapping[str, tuple[SdxlShape, int]] = {
    "base": (SDXL_TINY, 0),
    "turbo": (SDXL_TURBO, 1),
    "consistency": (replace(SDXL_TINY, guidance_width=12, prediction_type="v_prediction"), 0),
}


@pytest.fixture(scope="session")
def open_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other

    @cache
    def open_one(name: str) -> Pair:
        return make_pair(tmp_path_factory.mktemp(name), *MODELS[name])

    return open_one


@pytest.fixture(scope="session")
def open_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SdxlPair]:
    """A small SDXL by its name in :data:`SDXL`, drawn by both. It has both VAEs, and its native size is 64."""
    torch.set_num_threads(1)

    @cache
    def open_one(name: str) -> SdxlPair:
        return sdxl_pairs.make_pair(tmp_path_factory.mktemp(name), *SDXL[name])

    return open_one


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest, open_pair: Callable[[str], Pair]) -> Pair:
    """Each of the checkpoints: they differ in widths, depths, levels, layout and text length."""
    return open_pair(request.param)


@pytest.fixture
def small(open_pair: Callable[[str], Pair]) -> Pair:
    """One of them, for what doesn't depend on the architecture."""
    return open_pair("small")
