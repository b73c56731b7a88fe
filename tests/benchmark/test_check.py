"""`vinograph check` compares what a model draws with what its checkpoint draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import save_sdxl_bundle
from tests.checkpoints import SDXL_TINY, save_sdxl
from tests.cli.conftest import Outcome
from vinograph.benchmark.check import amplified, distance
from vinograph.convert import convert

Run = Callable[..., Outcome]

SMALL = ("--size", "64x64", "--steps", 2)


@pytest.fixture(scope="session")
def checkpoint_and_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("check")
    home = save_sdxl(folder, replace(SDXL_TINY, tiny_vae=True)).home
    return home, convert(home, folder / "bundle", weights="f32").path


def test_a_bundle_draws_what_its_checkpoint_draws(vinograph: Run, checkpoint_and_bundle: tuple[Path, Path]) -> None:
    checkpoint, bundle = checkpoint_and_bundle
    prompts = ("--prompt", "a house", "--prompt", "a boat")
    done = vinograph(
        "check", bundle, "--against", checkpoint, *SMALL, *prompts, "--count", 2, "-o", "both.png", "--json"
    )
    assert done.code == 0, done.err
    record = done.record
    assert [(each["prompt"], each["seed"]) for each in record["pictures"]] == [
        (prompt, seed) for prompt in ("a house", "a boat") for seed in (7, 8)
    ]
    assert all((each["max"], each["mean"], each["psnr"]) == (0, 0, None) for each in record["pictures"])
    assert (record["agrees"], record["bound"], record["file"]) == (True, 30, "both.png")
    assert set(record["computed"]["model"].values()) == set(record["computed"]["against"].values()) == {"CPU f32"}
    with Image.open("both.png") as sheet:
        assert sheet.size == (3 * 64, 20 + 4 * 64)


def test_diffusers_draws_the_reference(vinograph: Run, checkpoint_and_bundle: tuple[Path, Path]) -> None:
    checkpoint, bundle = checkpoint_and_bundle
    done = vinograph("check", bundle, "--against", checkpoint, "--with", "diffusers", *SMALL, "--json")
    assert done.code == 0, done.err
    (picture,) = done.record["pictures"]
    assert picture["max"] <= 2
    assert done.record["computed"]["against"] == {"all": "CPU float32"}


def test_another_picture_is_told_and_shown(vinograph: Run, tmp_path: Path) -> None:
    models = [save_sdxl(tmp_path / str(kind), replace(SDXL_TINY, tiny_vae=True), seed=kind).home for kind in (0, 1)]
    done = vinograph("check", models[0], "--against", models[1], *SMALL, "-o", "both.png")
    assert done.code == 3
    assert "does NOT draw what" in done.out
    assert "a picture's PSNR is below 30 dB" in done.err
    with Image.open("both.png") as sheet:
        pixels = np.asarray(sheet)[20:].astype(int)
    difference = np.abs(pixels[:, :64] - pixels[:, 64:128])
    factor = max(1, min(64, 255 // difference.max()))
    assert np.array_equal(np.minimum(difference * factor, 255), pixels[:, 128:])
    assert vinograph("check", models[0], "--against", models[1], *SMALL, "--bound", 0).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--against", "storybook-pixart"), ("of the family pixart", "of sdxl")),
        (("--against", "storybook-sdxl", "--with", "diffusers"), ("has a model_index.json",)),
        (("--against", "storybook-sdxl", "--with", "optimum"), ("--with takes diffusers",)),
        (("--against", "storybook-sdxl", "--python", "python3"), ("--python has no use",)),
        (("--against", "storybook-sdxl", "-o", "a.bmp"), ("end the name in one of",)),
        (("--against", "storybook-sdxl", "--option", "image=a.png"), ("draws from a text alone",)),
        (("--against", "storybook-sdxl", "--count", "0"), ("--count is 0",)),
    ],
)
def test_what_cannot_be_compared_is_refused(vinograph: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    vinograph("check", "storybook-sdxl", *arguments).fails(2, *words)


def test_a_reference_that_fails_is_an_error(vinograph: Run, tmp_path: Path) -> None:
    save_sdxl_bundle(tmp_path / "whole")
    save_sdxl_bundle(tmp_path / "broken", broken="unet")
    done = vinograph("check", "whole", "--against", "broken", "--size", "64x64")
    done.fails(3, "broken in f32 could not draw: ", "NaN")


def test_measures() -> None:
    black, grey = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 51, np.uint8)
    assert distance(black, grey) == {"max": 51, "mean": 51.0, "psnr": pytest.approx(13.98, abs=0.01)}
    assert distance(grey, black)["max"] == 51
    assert amplified(black, grey, 4).tolist() == np.full((2, 2, 3), 204).tolist()
    assert amplified(grey, black, 64).max() == 255
