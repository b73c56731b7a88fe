"""Checkpoints and pipelines that are built once for all comparisons with diffusers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
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
from tests.compiled_once import CompiledOnce
from tests.memory import resident
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
    "inpainting": (replace(SDXL_TINY, inpaints=True), 0),
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


_MAKE: Mapping[str, Callable[[Path, str], Any]] = {
    "wuerstchen": lambda folder, name: make_pair(folder, *MODELS[name]),
    "sdxl": lambda folder, name: sdxl_pairs.make_pair(folder, *SDXL[name]),
    "pixart": lambda folder, name: pixart_pairs.make_pair(folder, *PIXARTS[name]),
}
# Compiled for two sizes by two pipelines, a pair has hundreds of megabytes. How many may be added to what the process
# had: a limit on all it has would free the pairs after each test where others before left it large.
_ROOM = 2**28


class Pairs:
    """All pairs that were opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[tuple[str, str], Any] = {}
        self._before = resident()

    def open(self, family: str, name: str) -> Any:
        """A pair by its family and its name there."""
        key = (family, name)
        if key not in self._opened:
            self._opened[key] = _MAKE[family](self._folder / family / name, name)
        return self._opened[key]

    @property
    def are_large(self) -> bool:
        """Whether the process has much more than when nothing was compiled."""
        return resident() > self._before + _ROOM

    def free(self) -> None:
        """Free what all have compiled."""
        for each in self._opened.values():
            each.ours.free()
        self._before = resident()


@pytest.fixture(scope="session")
def _pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other
    return Pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def pairs(_pairs: Pairs) -> Iterator[Pairs]:
    """All pairs, of which nothing stays compiled when a module ends."""
    yield _pairs
    _pairs.free()


@pytest.fixture(autouse=True)
def _freed_in_time(_pairs: Pairs, compiled_once: CompiledOnce) -> Iterator[None]:
    """Equal graphs are compiled once, and nothing stays compiled when a test ends after which it is large."""
    yield
    if _pairs.are_large:
        compiled_once.free()
        _pairs.free()


@pytest.fixture(scope="module")
def open_pair(pairs: Pairs) -> Callable[[str], Pair]:
    """A small Würstchen by its name in :data:`MODELS`, drawn by both."""
    return partial(pairs.open, "wuerstchen")


@pytest.fixture(scope="module")
def open_sdxl(pairs: Pairs) -> Callable[[str], SdxlPair]:
    """A small SDXL by its name in :data:`SDXL`, drawn by both. It has both VAEs, and its native size is 64."""
    return partial(pairs.open, "sdxl")


@pytest.fixture(scope="module")
def open_pixart(pairs: Pairs) -> Callable[[str], PixArtPair]:
    """A small PixArt by its name in :data:`PIXARTS`, drawn by both. It has both VAEs."""
    return partial(pairs.open, "pixart")


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest, open_pair: Callable[[str], Pair]) -> Pair:
    """Both pipelines of each small Würstchen, which differ in sizes, layout and text length."""
    return open_pair(request.param)


@pytest.fixture
def small(open_pair: Callable[[str], Pair]) -> Pair:
    """Both pipelines of one Würstchen, for tests that don't depend on the architecture."""
    return open_pair("small")
