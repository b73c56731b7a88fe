"""Checkpoints are built and converted once for all comparisons."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from tests.checkpoints import DEEP, SHALLOW, SMALL
from tests.parity.pairs import Pair, make_pair

# The seeds are of weights that magnify neither the latents nor the rounding.
MODELS: dict[str, Any] = {
    "small": (SMALL, "combined", 0),
    "deep": (DEEP, "split", 1),
    "shallow": (SHALLOW, "combined", 0),
}


@pytest.fixture(scope="session")
def open_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other

    @cache
    def open_one(name: str) -> Pair:
        return make_pair(tmp_path_factory.mktemp(name), *MODELS[name])

    return open_one


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest, open_pair: Callable[[str], Pair]) -> Pair:
    """Each of the checkpoints: they differ in widths, depths, levels, layout and text length."""
    return open_pair(request.param)


@pytest.fixture
def small(open_pair: Callable[[str], Pair]) -> Pair:
    """One of them, for what doesn't depend on the architecture."""
    return open_pair("small")
