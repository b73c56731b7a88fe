"""The embedded PixArt gives diffusers' pictures of its checkpoint: pictures that mean something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tests.parity.ways import AllWays

# diffusers' schedulers pass tensors to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_DIFFUSERS: Any = diffusers  # its classes are not typed
CHECKPOINTS = Path(__file__).parents[2] / "training" / "checkpoints"
PROMPT = "two green trees on the left in a meadow on a clear day"


SIZES = ((256, 256), (192, 320), (200, 300))


@pytest.mark.parametrize(
    ("model", "steps", "sizes"),
    [
        ("storybook-pixart", 20, SIZES[:1]),
        pytest.param("storybook-pixart", 20, SIZES[1:], marks=pytest.mark.long),  # twenty steps show no more of a size
        ("storybook-pixart", 2, SIZES[1:]),
        ("storybook-pixart-lcm", 4, SIZES),
        ("storybook-pixart-lcm", 1, SIZES),
    ],
)
def test_text_to_image(model: str, steps: int, sizes: tuple[tuple[int, int], ...]) -> None:
    pipe = _DIFFUSERS.PixArtAlphaPipeline.from_pretrained(CHECKPOINTS / model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    ours = AllWays.opened(CHECKPOINTS / model, model)
    scale = ours.calls["generate"].takes["guidance_scale"]
    for height, width in sizes:
        arguments: dict[str, Any] = {
            "height": height,
            "width": width,
            "num_inference_steps": steps,
            "output_type": "np",
        }
        arguments["guidance_scale"] = scale
        other = pipe(PROMPT, generator=torch.Generator().manual_seed(7), **arguments).images
        mine = ours(PROMPT, seed=7, **arguments).images
        assert mine.shape == other.shape == (1, height, width, 3)
        assert other.std() > 0.1  # a picture with contrast
        assert np.abs(mine - other).max() * 255 <= 0.5
