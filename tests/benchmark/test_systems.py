"""Other systems really draw from the bundle's checkpoint; in f32, they draw the same picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmark.conftest import Measure
from tests.checkpoints import PIXART_256, SDXL_TINY, TINY, save_pixart, save_sdxl, save_wuerstchen
from vinograph.convert import convert

ONCE = ("--precision", "f32", "--adherence", 0, "--runs", 1, "--rounds", 1)


def sdxl(folder: Path) -> list[object]:
    saved = save_sdxl(folder, replace(SDXL_TINY, tiny_vae=True))
    bundle = convert(saved.home, folder / "bundle", weights="f32")
    return [bundle.path, "--checkpoint", saved.home, "--size", "64x64", "--steps", 2]


def pixart(folder: Path) -> list[object]:
    saved = save_pixart(folder, PIXART_256)
    bundle = convert(saved.home, folder / "bundle", weights="f32")
    return [bundle.path, "--checkpoint", saved.home, "--size", "256x256", "--steps", 2]


def wuerstchen(folder: Path) -> list[object]:
    saved = save_wuerstchen(folder, TINY, "split")
    bundle = convert(saved.decoder, folder / "bundle", prior=str(saved.prior), weights="f32")
    apart = ["--checkpoint", saved.decoder, "--prior", saved.prior]
    return [bundle.path, *apart, "--size", "128x128", "--steps", 2, "--option", "num_inference_steps=2"]


@pytest.mark.parametrize(("checkpoint_of", "vae"), [(sdxl, "tiny"), (wuerstchen, None)])
def test_diffusers(measure: Measure, tmp_path: Path, checkpoint_of: Callable[[Path], list[object]], vae: str) -> None:
    ours, theirs = measure(*checkpoint_of(tmp_path), "--against", "diffusers", *ONCE)["rows"]
    assert theirs["failure"] is None
    assert theirs["ssim"] == pytest.approx(1)
    assert theirs["psnr"] is None or theirs["psnr"] > 70, "None: the same bytes"
    assert theirs["vae"] == ours["vae"] == vae
    assert set(theirs["stages"]) == set(ours["stages"])
    assert theirs["computed"] == {"all": "CPU float32"}
    assert theirs["size"] > 100_000


@pytest.mark.long
def test_diffusers_compiled(measure: Measure, tmp_path: Path) -> None:
    """It needs a compiler of C++. The first picture waits for it."""
    compiled = measure(*sdxl(tmp_path), "--against", "diffusers-compile", *ONCE)["rows"][1]
    assert compiled["failure"] is None
    assert compiled["ssim"] == pytest.approx(1)
    assert compiled["computed"] == {"all": "CPU float32 compiled"}


@pytest.mark.parametrize(
    ("checkpoint_of", "least"),
    [
        pytest.param(sdxl, 35, marks=pytest.mark.long),  # diffusers, too, draws it and Würstchen
        (pixart, 25),
        pytest.param(wuerstchen, 10, marks=pytest.mark.long),
    ],
)
def test_the_notebooks_way(
    measure: Measure, tmp_path: Path, checkpoint_of: Callable[[Path], list[object]], least: float
) -> None:
    """Its weights are in f16, ours in f32, and so are the waves that tell a transformer its time.

    Of Würstchen it draws another picture: OpenVINO 2026.4 converts a smoothed bicubic resize that
    keeps the corners as one that doesn't. Ours is done outside of the graph.
    """
    work = tmp_path / "work"
    record = measure(*checkpoint_of(tmp_path / "made"), "--against", "notebook", *ONCE, "--work", work)
    ours, theirs = record["rows"]
    assert theirs["failure"] is None
    assert theirs["psnr"] > least
    assert set(theirs["stages"]) == set(ours["stages"])
    assert record["prepared"]["notebook"]["failure"] is None
    assert [each.name.split("-")[0] for each in work.iterdir()] == ["notebook"]
