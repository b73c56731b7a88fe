"""The other systems really draw, from the checkpoint that the bundle was converted from; in f32, the same picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.conftest import Measure
from tests.checkpoints import PIXART_256, SDXL_TURBO, TINY, save_pixart, save_sdxl, save_wuerstchen
from vinograph.convert import convert


def sdxl(folder: Path) -> list[object]:
    saved = save_sdxl(folder, SDXL_TURBO, 1)
    bundle = convert(saved.home, folder / "bundle", weights="f32", tiny_vae=str(saved.tiny_vae))
    return [bundle.path, "--checkpoint", saved.home, "--size", "64x64"]


def pixart(folder: Path) -> list[object]:
    saved = save_pixart(folder, replace(PIXART_256, tiny_vae=True))
    bundle = convert(saved.home, folder / "bundle", weights="f32")
    return [bundle.path, "--checkpoint", saved.home, "--size", "256x256", "--steps", 2, "--option", "vae=full"]


def wuerstchen(folder: Path) -> list[object]:
    saved = save_wuerstchen(folder, TINY, "split")
    bundle = convert(saved.decoder, folder / "bundle", prior=str(saved.prior), weights="f32")
    apart = ["--checkpoint", saved.decoder, "--prior", saved.prior]
    return [bundle.path, *apart, "--size", "128x128", "--steps", 2, "--option", "num_inference_steps=2"]


STAGES: dict[Any, set[str]] = {sdxl: {"text", "unet", "vae"}, pixart: {"text", "transformer", "vae"}}


@pytest.mark.parametrize("checkpoint_of", [sdxl, pixart, wuerstchen])
def test_diffusers_and_the_notebooks_way(
    measure: Measure, tmp_path: Path, checkpoint_of: Callable[[Path], list[object]]
) -> None:
    told = ("--against", "diffusers", "--against", "notebook", "--precision", "f32", "--adherence", 0)
    record = measure(*checkpoint_of(tmp_path / "made"), *told, "--runs", 1, "--rounds", 1, "--work", tmp_path / "work")
    rows: dict[str, Any] = {row["system"]: row for row in record["rows"]}
    assert [row["failure"] for row in rows.values()] == [None, None, None]
    assert rows["diffusers"]["psnr"] > 70
    assert rows["notebook"]["psnr"] > 30  # its weights are in f16, ours in f32
    stages = STAGES.get(checkpoint_of, {"text", "prior", "decoder", "vqgan"})
    assert all(set(row["stages"]) == stages for row in rows.values())
    assert record["prepared"]["notebook"]["failure"] is None
    assert [each.name.split("-")[0] for each in (tmp_path / "work").iterdir()] == ["notebook"]
    assert rows["notebook"]["size"] > 100_000
