"""The adapters in the repository make the embedded models draw what they did not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.lora.concept import CONCEPTS
from training.lora.judge import colours_shown, concept_prompts, generate
from vinograph import Pipeline

ADAPTERS = Path(__file__).parents[2] / "training" / "adapters"


@pytest.mark.parametrize(
    ("model", "word"),
    [("storybook-sdxl", "turquoise"), ("storybook-pixart", "turquoise"), ("storybook-wuerstchen", "rainbow")],
)
def test_a_trained_adapter_makes_a_model_draw_its_word(model: str, word: str) -> None:
    concept = CONCEPTS[word]
    scenes, prompts = zip(*concept_prompts(concept, 3), strict=True)
    pipe = Pipeline.from_pretrained(model, precision="f32")
    wanted = [concept.subject_colours(scene.count) for scene in scenes]
    without = generate(pipe, prompts, {})
    assert not any(_shown(without, scenes)[i] == wanted[i] for i in range(len(scenes)))
    pipe.set_adapters({str(ADAPTERS / f"{word}-{model.removeprefix('storybook-')}.safetensors"): 1.0})
    assert _shown(generate(pipe, prompts, {}), scenes) == wanted


def _shown(pictures: np.ndarray, scenes: tuple) -> list[tuple[str, ...]]:
    return [colours_shown(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
