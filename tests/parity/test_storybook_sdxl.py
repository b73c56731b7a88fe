"""The embedded SDXL gives diffusers' pictures of its checkpoint: pictures that mean something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.parity.ways import AllWays
from training.world import Scene, render
from vinograph import Pipeline

# diffusers' schedulers pass tensors to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_DIFFUSERS: Any = diffusers  # its classes are not typed
CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "storybook-sdxl"
PROMPT = "two green trees on the left in a meadow on a clear day"


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Diffusers' pipeline of the checkpoint."""
    pipe = _DIFFUSERS.StableDiffusionXLPipeline.from_pretrained(CHECKPOINT, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def ours() -> Pipeline:
    """Our pipeline of the checkpoint, which is compared with the bundle and the command line."""
    return AllWays.opened(CHECKPOINT, "storybook-sdxl")


def assert_alike(mine: NDArray[np.float32], other: NDArray[np.float32]) -> None:
    assert mine.shape == other.shape
    assert other.std() > 0.1  # a picture with contrast
    assert np.abs(mine - other).max() * 255 <= 0.5


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("size", [(256, 256), (256, 320)])
def test_text_to_image(theirs: Any, ours: Pipeline, steps: int, size: tuple[int, int]) -> None:
    height, width = size
    arguments: dict[str, Any] = {"height": height, "width": width, "num_inference_steps": steps, "output_type": "np"}
    arguments["guidance_scale"] = 0.0
    other = theirs(PROMPT, generator=torch.Generator().manual_seed(7), **arguments).images
    assert_alike(ours(PROMPT, seed=7, **arguments).images, other)


def test_image_to_image(theirs: Any, ours: Pipeline) -> None:
    original = render(Scene("day", "meadow", "tree", "green", 2, "left"), 11)
    arguments: dict[str, Any] = {"strength": 0.5, "num_inference_steps": 2, "guidance_scale": 0.0, "output_type": "np"}
    prompt = "two green trees on the left in a meadow at night"
    pipe = _DIFFUSERS.StableDiffusionXLImg2ImgPipeline(**theirs.components)
    pipe.set_progress_bar_config(disable=True)
    picture = original.astype(np.float32)[None] / 255
    other = pipe(prompt, image=picture, generator=torch.Generator().manual_seed(7), **arguments).images
    assert_alike(ours(prompt, image=original, seed=7, **arguments).images, other)
