"""The comparisons use directory, bundle and command line, and notice any difference."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.compiled_once import CompiledOnce
from tests.parity.sdxl_pairs import SdxlPair, picture
from tests.parity.ways import AllWays, command_line

FEW: Mapping[str, Any] = {"num_inference_steps": 2, "output_type": "np"}
BY_COMMAND: Mapping[str, Any] = {**FEW, "seed": 3}
BY_CALL: Mapping[str, Any] = {**FEW, "seed": 3, "eta": 0.0}  # the command line has no option for it


@pytest.fixture
def ours(open_sdxl: Callable[[str], SdxlPair]) -> AllWays:
    return open_sdxl("base").ours


def test_directory_bundle_and_command_line_are_all_compared(ours: AllWays) -> None:
    assert (ours.model.path / "model_index.json").is_file()
    assert (ours.bundle / "bundle.json").is_file()
    before = dict(ours.counts)
    ours("a red house", **BY_COMMAND)
    ours("a red house", **BY_CALL)
    assert ours.counts == {way: before[way] + 1 for way in before}


def test_a_directory_and_its_bundle_have_the_same_graphs(ours: AllWays, compiled_once: CompiledOnce) -> None:
    """So they are compiled once for both; with different graphs, no comparison would be quick."""
    ours.free()
    compiled_once.free()
    before = dict(compiled_once.counts)
    ours("a red house", **BY_COMMAND)
    made = {name: count - before[name] for name, count in compiled_once.counts.items()}
    assert made["shared"] == made["compiled"] > 0


@pytest.mark.parametrize("given", [BY_COMMAND, BY_CALL], ids=["command", "call"])
def test_a_bundle_with_another_result_is_noticed(ours: AllWays, given: Mapping[str, Any]) -> None:
    other = copy.copy(ours._bundle)
    latents = other._components.config.latents
    vae = dataclasses.replace(latents.vae, factor=latents.vae.factor * 1.001)
    config = dataclasses.replace(other._components.config, latents=dataclasses.replace(latents, vae=vae))
    other._components = dataclasses.replace(other._components, config=config)
    with pytest.raises(AssertionError, match=r"draw different bits|writes something else"):
        AllWays(ours._directory, other)("a red house", vae="full", **given)


def test_calls_become_options_of_the_command_line(ours: AllWays, tmp_path: Path) -> None:
    given = {
        "prompt": "a",
        "seed": 1,
        "width": 64,
        "height": 72,
        "guidance_scale": 2.5,
        "image": picture(),
        "vae": "tiny",
    }
    line = command_line(ours, {**given, "strength": 0.5, "negative_prompt": "b", "output_type": "np"}, tmp_path)
    assert line == [
        *("a", "--size", "64x72", "--seed", "1", "--guidance-scale", "2.5", "--image", str(tmp_path / "image.png")),
        *("--vae", "tiny", "--strength", "0.5", "--negative-prompt", "b"),
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": ["a", "b"]},
        {"output_type": "latent"},
        {"eta": 0.5},
        {"seed": None, "generator": torch.Generator()},
        {"image": torch.zeros(1, 3, 8, 8)},
        {"prompt": "-a"},
    ],
    ids=lambda each: "-".join(each),
)
def test_calls_without_options_are_made_in_python(ours: AllWays, given: dict[str, Any], tmp_path: Path) -> None:
    assert command_line(ours, {"prompt": "a", "seed": 1, **given}, tmp_path) is None
