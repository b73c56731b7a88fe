"""From a checkpoint to a picture by the command line, in a process where torch can't be imported.

The checkpoint is opened as it is and converted. Both give diffusers' picture, and the same bytes.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from tests.checkpoints import PIXART_TINY, SDXL_TINY, save_pixart, save_sdxl
from tests.parity.pairs import Pair
from vinograph.models import catalog

Run = Callable[..., subprocess.CompletedProcess[str]]

_DIFFUSERS: Any = diffusers

DRAW = "from vinograph.cli import main\nsys.exit(main())\n"
PROMPT = "a red house on a snowy hill at night"


def converted(*arguments: str) -> None:
    """Run ``vinograph convert`` with ``arguments``, in f32."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent / "src")}
    command = [sys.executable, "-m", "vinograph", "convert", *arguments, "--weights", "f32"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def drawn(process: Run, checkpoint: Path, bundle: str, *arguments: str, picture: Path) -> Image.Image:
    """The picture of ``vinograph generate`` in f32, which is equal for both models."""
    written = []
    for model in (str(checkpoint), bundle):
        options = ("--model", model, *arguments, "--output", str(picture), "--precision", "f32", "--json")
        done = process(DRAW, "generate", PROMPT, *options)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["images"][0]["file"] == str(picture)
        written.append(picture.read_bytes())
    assert written[0] == written[1]
    with Image.open(picture) as read:
        assert read.mode == "RGB"
        return read.copy()


def place_for(checkpoint: Path, folder: Path) -> str:
    """Where to convert to, so that the bundle has the checkpoint's name, which the pictures say."""
    return str(folder / "bundles" / catalog.find(str(checkpoint)).manifest.name)


def assert_same(made: Image.Image, expected: Image.Image) -> None:
    assert made.size == expected.size
    assert np.abs(np.asarray(made, int) - np.asarray(expected, int)).max() <= 1
    assert np.asarray(made).std() > 10


def test_wuerstchen(small: Pair, tmp_path: Path, without_torch: Run) -> None:
    bundle = place_for(small.saved.decoder, tmp_path)
    converted(str(small.saved.decoder), bundle)
    options: tuple[str, ...] = (
        "--size",
        "256x128",
        "--steps",
        "4",
        "--decoder-steps",
        "3",
        "--negative-prompt",
        "blurry",
    )
    options += ("--guidance-scale", "5", "--seed", "7")
    made = drawn(without_torch, small.saved.decoder, bundle, *options, picture=tmp_path / "house.png")
    (expected,) = small.theirs(
        PROMPT,
        height=128,
        width=256,
        prior_num_inference_steps=4,
        num_inference_steps=3,
        negative_prompt="blurry",
        prior_guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
    ).images
    assert_same(made, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_sdxl(tmp_path: Path, without_torch: Run) -> None:
    """Text to image uses the tiny VAE, image to image the full one."""
    torch.set_num_threads(1)
    saved = save_sdxl(tmp_path, SDXL_TINY)
    shutil.copytree(saved.tiny_vae, saved.home / "tiny_vae")
    bundle = place_for(saved.home, tmp_path)
    converted(str(saved.home), bundle)
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    options: tuple[str, ...] = ("--size", "96x72", "--steps", "4", "--negative-prompt", "blurry", "--seed", "7")
    made = drawn(without_torch, saved.home, bundle, *options, picture=first)
    parts = saved.models.pipeline().components
    text = quiet("StableDiffusionXLPipeline", {**parts, "vae": saved.models.tiny_vae})
    few = {"num_inference_steps": 4, "negative_prompt": "blurry"}
    (expected,) = text(PROMPT, height=72, width=96, generator=torch.Generator().manual_seed(7), **few).images
    assert_same(made, expected)

    options = ("--image", str(first), "--strength", "0.6", "--vae", "full", *options[2:])
    again = drawn(without_torch, saved.home, bundle, *options, picture=second)
    image = quiet("StableDiffusionXLImg2ImgPipeline", parts)
    given = {**few, "image": made, "strength": 0.6, "generator": torch.Generator().manual_seed(7)}
    assert_same(again, image(PROMPT, **given).images[0])


def quiet(name: str, parts: dict[str, Any]) -> Any:
    """diffusers' pipeline of that name, without progress bars and watermarks."""
    there = {name: part for name, part in parts.items() if part is not None}
    pipeline = getattr(_DIFFUSERS, name)(**there, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pixart(tmp_path: Path, without_torch: Run) -> None:
    """Text to image with guidance, at an untrained size, and image to image."""
    torch.set_num_threads(1)
    saved = save_pixart(tmp_path, PIXART_TINY)
    bundle = place_for(saved.home, tmp_path)
    converted(str(saved.home), bundle)
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    options: tuple[str, ...] = ("--size", "96x64", "--steps", "4", "--negative-prompt", "blurry", "--seed", "7")
    made = drawn(without_torch, saved.home, bundle, *options, picture=first)
    pipeline = saved.models.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    given = {"height": 64, "width": 96, "num_inference_steps": 4, "negative_prompt": "blurry"}
    generator = torch.Generator().manual_seed(7)
    (expected,) = pipeline(PROMPT, **given, use_resolution_binning=False, generator=generator).images
    assert_same(made, expected)
    options = ("--image", str(first), "--strength", "0.5", *options[2:])
    again = drawn(without_torch, saved.home, bundle, *options, picture=second)
    assert np.abs(np.asarray(again, int) - np.asarray(made, int)).max() > 1
