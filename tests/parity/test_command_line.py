"""From a checkpoint to a picture by the command line alone, drawn in a process where torch can't be imported."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.parity.pairs import Pair

DRAW = "from vinograph.cli import main\nsys.exit(main())\n"
PROMPT = "a red house on a snowy hill at night"


def test_convert_then_generate(
    small: Pair, tmp_path: Path, without_torch: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    bundle, picture = tmp_path / "house", tmp_path / "house.png"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent / "src")}
    command = [sys.executable, "-m", "vinograph", "convert", str(small.saved.decoder), str(bundle), "--weights", "f32"]
    converted = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert converted.returncode == 0, converted.stderr

    told = ["generate", PROMPT, "--model", str(bundle), "--output", str(picture), "--size", "256x128", "--steps", "4"]
    told += [
        "--decoder-steps",
        "3",
        "--negative-prompt",
        "blurry",
        "--guidance-scale",
        "5",
        "--precision",
        "f32",
        "--seed",
        "7",
    ]
    drew = without_torch(DRAW, *told, "--json")
    assert drew.returncode == 0, drew.stderr
    assert json.loads(drew.stdout)

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
    with Image.open(picture) as read:
        assert (read.size, read.mode) == ((256, 128), "RGB")
        assert np.abs(np.asarray(read, int) - np.asarray(expected, int)).max() <= 1
        assert np.asarray(read).std() > 10
