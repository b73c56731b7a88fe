"""Words outside a model's vocabulary are named; a model without one never warns."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path

import pytest

from training.world import caption, sample
from training.world.vocabulary import vocabulary as words_of_the_world
from vinograph import Pipeline
from vinograph.models import catalog
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import Manifest
from vinograph.vocabulary import unseen_words, warnings

ROOT = Path(__file__).parents[1]
WORLD = words_of_the_world()
BEGINNING = "the model has not seen: "


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("storybook-sdxl")


class TestWords:
    def test_words_are_named_in_their_order_and_once(self) -> None:
        prompts = ["a Dragon beside a castle", "two dragons and a DRAGON's castle"]
        assert unseen_words(prompts[0], WORLD) == ["dragon", "beside", "castle"]
        assert warnings(prompts, WORLD) == [BEGINNING + "dragon, beside, castle, dragons"]

    def test_many_words_are_counted(self) -> None:
        prompt = " ".join("abcdefghijkl"[i] * 5 for i in range(12))
        assert warnings([prompt], WORLD) == [BEGINNING + ", ".join(prompt.split()[:8]) + " and 4 more"]

    @pytest.mark.parametrize(
        "prompt",
        [
            "",
            "a house, two houses, the cat's home",
            "boats that sailed, cats who sit",
            "A RED HOUSE IN THE SNOW!",
            "(red house:1.3) BREAK [a cat]",
            "a flower on a sunny dune",
            "please draw me three of your boats",
        ],
    )
    def test_inflections_stop_words_and_syntax_are_no_words(self, prompt: str) -> None:
        assert unseen_words(prompt, WORLD) == []

    def test_other_scripts_and_numbers_are_words(self) -> None:
        assert unseen_words("ein Häuschen, 4 boats, дом, 家", WORLD) == ["ein", "häuschen", "4", "дом", "家"]

    def test_learned_words_are_known(self) -> None:
        assert unseen_words("a house in <My-Style> by someone", WORLD, ["<my-style>"]) == ["someone"]

    def test_without_a_vocabulary_every_word_is_known(self) -> None:
        assert warnings(["a dragon"], ()) == []

    def test_no_caption_of_the_world_has_an_unseen_word(self) -> None:
        rng = random.Random(9)
        for _ in range(3000):
            text = caption(sample(rng, None), rng, dropout=0.3)
            assert unseen_words(text, WORLD) == [], text

    def test_no_storybook_prompt_of_the_documents_has_an_unseen_word(self) -> None:
        commands = [
            command
            for page in ("README.md", "docs/storybook.md")
            for command in re.findall(r'^vinograph generate "[^"]+".*', (ROOT / page).read_text(), re.MULTILINE)
            if ("--model" not in command or "storybook" in command) and "dragon.png" not in command
        ]
        assert len(commands) > 3
        for command in commands:
            assert unseen_words(command.split('"')[1], WORLD) == [], command


class TestModels:
    def test_every_embedded_model_knows_the_worlds_words(self) -> None:
        for folder in catalog.embedded():
            assert list(Bundle.open(folder).manifest.vocabulary) == WORLD, folder

    def test_a_drawing_warns_by_name(self, pipe: Pipeline) -> None:
        assert pipe("a dragon beside a red house").warnings == (BEGINNING + "dragon, beside",)
        assert pipe("a red house on a snowy hill").warnings == ()

    def test_an_adapter_may_have_taught_a_word(self) -> None:
        taught = {str(ROOT / "training" / "adapters" / "turquoise-sdxl.safetensors"): 1.0}
        drawn = Pipeline.from_pretrained("storybook-sdxl", adapters=taught)("a turquoise house")
        assert not any(each.startswith(BEGINNING) for each in drawn.warnings)

    def test_a_model_without_a_vocabulary_never_warns(self, pipe: Pipeline) -> None:
        found = catalog.find("storybook-sdxl")
        assert isinstance(found, Bundle)
        bare = Bundle(found.path, dataclasses.replace(found.manifest, vocabulary=()))
        assert Pipeline(bare)("a dragon").warnings == ()

    def test_a_manifest_without_words_is_as_before(self, pipe: Pipeline) -> None:
        bare = dataclasses.replace(pipe.model.manifest, vocabulary=())
        assert '"vocabulary"' not in bare.to_json()
        assert Manifest.from_json(bare.to_json(), "bundle.json") == bare
        again = Manifest.from_json(pipe.model.manifest.to_json(), "bundle.json")
        assert again.vocabulary == pipe.model.manifest.vocabulary
