"""The adapters in the repository make the embedded models draw what they did not know."""

from __future__ import annotations

from operator import eq
from pathlib import Path

import pytest

from benchmarks.new_words import colours_shown, concept_prompts, generate
from training.lora.concept import CONCEPTS
from vinograph import Pipeline

ADAPTERS = Path(__file__).parents[2] / "training" / "adapters"


@pytest.mark.parametrize(
    ("model", "word"),
    [("storybook-sdxl", "turquoise"), ("storybook-pixart", "turquoise"), ("storybook-wuerstchen", "tricolour")],
)
def test_a_trained_adapter_makes_a_model_draw_its_word(model: str, word: str) -> None:
    concept = CONCEPTS[word]
    scenes, prompts = zip(*concept_prompts(concept, 3), strict=True)
    pipe = Pipeline.from_pretrained(model, precision="f32")

    def shown() -> list[tuple[str, ...]]:
        pictures = generate(pipe, prompts, {})
        return [colours_shown(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]

    wanted = [concept.subject_colours(scene.count) for scene in scenes]
    assert not any(map(eq, shown(), wanted))
    pipe.set_adapters({str(ADAPTERS / f"{word}-{model.removeprefix('storybook-')}.safetensors"): 1.0})
    assert sum(map(eq, shown(), wanted)) >= 2
