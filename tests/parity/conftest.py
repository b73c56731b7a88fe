"""Checkpoints are built and converted once for all comparisons."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from tests.checkpoints import DEEP, SHALLOW, SMALL
from tests.parity.pairs import Pair, make_pair

MODELS = {"small": (SMALL, "combined"), "deep": (DEEP, "split"), "shallow": (SHALLOW, "combined")}


@pytest.fixture(scope="session")
def open_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other

    @cache
    def open_one(name: str) -> Pair:
        shape, layout = MODELS[name]
        return make_pair(tmp_path_factory.mktemp(name), shape, layout)

    return open_one


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest, open_pair: Callable[[str], Pair]) -> Pair:
    """Each of the checkpoints: they differ in widths, depths, levels, layout and text length."""
    return open_pair(request.param)


@pytest.fixture
def small(open_pair: Callable[[str], Pair]) -> Pair:
    """One of them, for what doesn't depend on the architecture."""
    return open_pair("small")
