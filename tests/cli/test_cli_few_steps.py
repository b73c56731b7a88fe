"""Models of few steps change a picture without any arithmetic of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.bundles import save_sdxl_bundle
from tests.cli.conftest import Run


@pytest.fixture
def turbo(tmp_path: Path) -> Path:
    """A model of one step, with SDXL-Turbo's defaults."""
    defaults = {"num_inference_steps": 1, "guidance_scale": 0.0, "strength": 0.5}
    return save_sdxl_bundle(tmp_path / "turbo", defaults=defaults).path


@pytest.fixture(autouse=True)
def _picture() -> None:
    Image.linear_gradient("L").convert("RGB").resize((96, 64)).save("a.png")


@pytest.mark.parametrize(
    ("strength", "steps", "done"),
    [(None, 2, 1), ("0.5", 2, 1), ("0.3", 4, 1), ("0.1", 10, 1), ("0.07", 15, 1), ("0.9", 2, 1), ("1", 1, 1)],
)
def test_the_default_steps_leave_one_to_do(
    vinograph: Run, turbo: Path, strength: str | None, steps: int, done: int
) -> None:
    options = () if strength is None else ("--strength", strength)
    outcome = vinograph("generate", "a house", "-m", turbo, "-i", "a.png", *options, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.record["request"]["num_inference_steps"] == steps
    assert f"unet {done}/{done}" in outcome.err
    assert outcome.record["warnings"] == []


def test_steps_that_are_given_are_not_changed(vinograph: Run, turbo: Path) -> None:
    arguments = ("generate", "a house", "-m", turbo, "-i", "a.png", "--steps", 1)
    vinograph(*arguments).fails(2, "1 steps at strength 0.5 leave none to do; give at least 2 steps")


@pytest.mark.parametrize("model", ["storybook-sdxl", "storybook-pixart-lcm"])
def test_the_embedded_models_need_no_arithmetic(vinograph: Run, model: str) -> None:
    done = vinograph("generate", "a house", "-m", model, "-i", "a.png", "--strength", 0.1, "--json")
    assert done.code == 0, done.err
    assert done.record["request"]["num_inference_steps"] == 10
    assert not [each for each in done.record["warnings"] if "steps" in each]
