"""A VAE in tiles computes what diffusers' VAE computes in tiles of the same size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.parity.pairs import assert_same_pictures
from tests.parity.sdxl_pairs import SdxlPair, picture
from vinograph import Pipeline
from vinograph.families import autoencoder, tiling
from vinograph.families.autoencoder import vae_of

TOLERANCE = 0.25 / 255  # of 2/255 that are promised
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDE = picture(584, 520)  # two rows of two tiles, of which the last are small


@pytest.fixture(scope="module")
def pair(open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
    return open_sdxl("base")


@pytest.fixture(scope="module")
def theirs(pair: SdxlPair) -> Any:
    """diffusers' VAE with tiles of 512 pixels."""
    vae = copy.deepcopy(pair.parts["vae"])
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = 512, 64
    return vae


def _values() -> torch.Tensor:
    return torch.tensor(np.asarray(WIDE, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1)


def _encoded(vae: Any) -> torch.Tensor:
    with torch.no_grad():
        mean: torch.Tensor = vae.encode(_values()).latent_dist.mean
    return mean


def _decoded(vae: Any, latents: torch.Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        sample = vae.decode(latents).sample
    pixels: NDArray[np.float32] = (sample / 2 + 0.5).clamp(0, 1).numpy().transpose(0, 2, 3, 1)
    return pixels


def test_encoding(pair: SdxlPair, theirs: Any) -> None:
    ours = pair.ours.encode(WIDE, vae="full", vae_tiling="on").images
    expected = _encoded(theirs).numpy() * pair.parts["vae"].config.scaling_factor
    assert np.abs(ours - expected).max() < 3e-4
    assert np.abs(ours - pair.ours.encode(WIDE, vae="full", vae_tiling="off").images).max() > 1e-3


def test_decoding(pair: SdxlPair, theirs: Any) -> None:
    latents = torch.randn((1, 4, 65, 73), generator=torch.Generator().manual_seed(1))
    expected = _decoded(theirs, latents)
    scaled = latents.numpy() * np.float32(pair.parts["vae"].config.scaling_factor)
    tiled, whole = (vae_of(pair.ours._components, "full", each).decode(scaled) for each in ("on", "off"))
    assert np.abs(tiled - expected).max() <= TOLERANCE
    assert np.abs(whole - expected).max() > 4 * TOLERANCE


def test_drawing(pair: SdxlPair, theirs: Any) -> None:
    size: dict[str, Any] = {"height": 64, "width": 576, "num_inference_steps": 2}
    ours = pair.draw_ours(seed=3, **size, vae_tiling="on")
    with_tiles = SdxlPair(pair.ours, {**pair.parts, "vae": theirs}, pair.tiny_vae)
    assert_same_pictures(ours, with_tiles.draw_theirs(seed=3, **size), tolerance=TOLERANCE)


class TestAuto:
    """Above 1536x1536 pixels the VAE computes in tiles by itself, and says so."""

    @pytest.fixture(autouse=True)
    def small_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vinograph.families.autoencoder.MAX_WHOLE_AREA", 64 * 600)

    def test_the_limit(self) -> None:
        assert tiling.MAX_WHOLE_AREA == 1536 * 1536

    @pytest.mark.parametrize(("width", "tiled"), [(600, False), (608, True)])
    def test_it_says_so(self, pair: SdxlPair, width: int, tiled: bool) -> None:
        source = picture(width, 64)
        result = Pipeline.reconstruct(pair.ours, source, vae="full", output_type="np")
        said = [each for each in result.warnings if "tiles of 512 pixels" in each]
        assert len(said) == (2 if tiled else 0)  # encoded and decoded
        same = Pipeline.reconstruct(
            pair.ours, source, vae="full", vae_tiling="on" if tiled else "off", output_type="np"
        )
        assert np.array_equal(result.images, same.images)
        assert not same.warnings

    def test_tiles_of_the_tiny_vae_are_exact(self, pair: SdxlPair, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(autoencoder._TILE_SIDES, "tiny", 128)
        source = picture(280, 264)
        result = Pipeline.reconstruct(pair.ours, source, vae="tiny", output_type="np")
        whole = Pipeline.reconstruct(pair.ours, source, vae="tiny", vae_tiling="off", output_type="np")
        assert not result.warnings
        assert np.abs(result.images - whole.images).max() < 1e-5
        monkeypatch.setattr(autoencoder, "_TINY_MARGIN", 1)
        narrow = Pipeline.reconstruct(pair.ours, source, vae="tiny", output_type="np")
        assert np.abs(narrow.images - whole.images).max() > 1e-3
