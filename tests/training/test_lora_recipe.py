"""The recipe for adapters runs for every family, and resumes; its scenes show what it teaches."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks.new_words import colours_shown
from training.lora import train as recipe
from training.lora.concept import CONCEPTS, TRICOLOUR, TURQUOISE
from training.lora.layers import add_adapters, write_adapter
from training.world import split_of
from vinograph.adapters.report import report
from vinograph.models import catalog

# PyTorch's own compiler still goes through torch.jit when it is first imported.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

CPU = torch.device("cpu")
BRIEFLY = 0.001  # minutes, enough for one step or a few


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "BATCH_SIZES", dict.fromkeys(recipe.BATCH_SIZES, 2))


@pytest.mark.parametrize("family", list(recipe.BATCH_SIZES))
def test_every_tensor_of_a_trained_adapter_fits_the_model(family: str, tmp_path: Path) -> None:
    file = tmp_path / "adapter.safetensors"
    recipe.train(family, TURQUOISE, file, BRIEFLY, CPU, scenes=2)
    found = report(file, catalog.find(f"storybook-{family}"))
    found.check()
    assert len(found.match.used) == len(found.file.tensors)
    assert not found.match.idle
    assert found.trigger_words == ["turquoise"]
    ups = [value for name, value in load_file(file).items() if "lora_B" in name]
    assert sum(bool(up.any()) for up in ups) == len(ups)


def test_an_interrupted_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "adapter.safetensors"

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "write_adapter", interrupt)
        with pytest.raises(KeyboardInterrupt):
            recipe.train("wuerstchen", TRICOLOUR, file, BRIEFLY, CPU, scenes=2)
    checkpoint = tmp_path / "adapter.partial.pt"
    steps = torch.load(checkpoint, weights_only=True)["budget"]["steps"]
    assert not file.exists()
    recipe.train("wuerstchen", TRICOLOUR, file, BRIEFLY, CPU, scenes=2)
    assert file.exists()
    assert not checkpoint.exists()
    # The time was used up, so the second run has nothing to train.
    last = (tmp_path / "adapter.log.jsonl").read_text().splitlines()[-1]
    assert f'"steps": {steps},' in last


def test_factors_change_linear_layers_and_convolutions_as_the_file_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 10), nn.Conv2d(5, 7, 3), nn.Linear(4, 4))
    before = [layer.weight.detach().clone() for layer in network if isinstance(layer, nn.Linear | nn.Conv2d)]
    factors = add_adapters(network, "[01]", rank=3)
    for parameter in factors.parameters():
        nn.init.normal_(parameter)
    shapes = {"net.0": before[0].shape, "net.1": before[1].shape}
    write_adapter(tmp_path / "file.safetensors", {"net": factors.state_dict()}, shapes, {})
    tensors = {name: value.float() for name, value in load_file(tmp_path / "file.safetensors").items()}
    after = [layer.weight for layer in network if isinstance(layer, nn.Linear | nn.Conv2d)]
    for index, weight in enumerate(before[:2]):
        down, up = (tensors[f"net.{index}.lora_{role}.weight"] for role in "AB")
        difference = (up.flatten(1) @ down.flatten(1)).view_as(weight)
        assert torch.allclose(after[index], weight + difference, atol=0.03)
        assert not torch.allclose(after[index], weight, atol=0.3)
    assert torch.equal(after[2], before[2])


def test_a_pattern_that_fits_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer's path matches 'attention'"):
        add_adapters(nn.Sequential(nn.Linear(2, 2)), "attention", rank=1)


@pytest.mark.parametrize("word", list(CONCEPTS))
def test_scenes_and_captions_show_and_name_the_concept(word: str) -> None:
    concept, rng = CONCEPTS[word], random.Random(0)
    for seed in range(3):
        scene = concept.sample(rng, "heldout")
        text, stated = concept.caption(scene, rng)
        assert word in text.split() or f"{word}," in text or f"{word}." in text
        assert "red" not in text.split()
        assert "colour" in stated
        assert split_of(scene) == "heldout"
        assert colours_shown(concept.render(scene, 100 + seed), scene) == concept.subject_colours(scene.count)


def test_the_judge_tells_colours_apart() -> None:
    scene = TURQUOISE.sample(random.Random(1), "heldout")
    grey = np.full((256, 256, 3), 128, np.uint8)
    assert "turquoise" not in colours_shown(grey, scene)
