import inspect
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from torch import nn

from tests.training.modules.agreement import (
    assert_same,
    assert_same_gradients,
    exchange_weights,
    noise,
    published,
    shapes,
    times,
)
from training.wuerstchen.modules import StageC, StageCConfig
from training.wuerstchen.modules.blocks import ResidualBlock, TimestepBlock

SMALL: dict[str, Any] = {"c_in": 4, "c": 24, "c_cond": 10, "c_r": 8, "depth": 2, "nhead": 3, "dropout": 0.1}
CONFIGS = {
    "two deep": SMALL,
    "one deep, one head": SMALL | {"depth": 1, "nhead": 1},
    "five deep, twelve heads": SMALL | {"depth": 5, "nhead": 12},
    "odd time embedding": SMALL | {"c_r": 9},
    "wide": SMALL | {"c": 64, "nhead": 4, "c_in": 16},
}


def pair(config: dict[str, Any]) -> tuple[StageC, WuerstchenPrior]:
    ours, theirs = StageC.from_config(published(config)), WuerstchenPrior(**config)
    exchange_weights(ours, theirs)
    # The noise is divided by |1 - b|: near zero it would show nothing but rounding.
    for module in (ours, theirs):
        module.get_parameter("out.1.weight").data.mul_(0.2)
    return ours.eval(), theirs.eval()


def inputs(config: dict[str, Any], size: tuple[int, int]) -> list[torch.Tensor]:
    return [noise(2, config["c_in"], *size), times(2), noise(2, 6, config["c_cond"], seed=2)]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(6, 6), (4, 9), (1, 3)], ids=str)
def test_noise_agrees_with_diffusers(config: dict[str, Any], size: tuple[int, int]) -> None:
    ours, theirs = pair(config)
    arguments = inputs(config, size)
    with torch.no_grad():
        assert_same(ours(*arguments), theirs(*arguments))


def test_gradients_agree_with_diffusers() -> None:
    ours, theirs = (module.train() for module in pair(SMALL | {"dropout": 0.0}))
    arguments = inputs(SMALL, (4, 9))
    ours(*arguments).square().mean().backward()
    theirs(*arguments).square().mean().backward()
    assert_same_gradients(ours, theirs)


def test_published_names_and_shapes_are_those_of_diffusers() -> None:
    config = {"c": 1536, "c_cond": 1280, "depth": 32, "nhead": 24}
    with torch.device("meta"):
        ours, theirs = StageC.from_config(config), WuerstchenPrior(**config)
    assert shapes(ours) == shapes(theirs)
    assert round(sum(parameter.numel() for parameter in ours.parameters()) / 1e6) == 994


def test_absent_keys_take_the_values_of_diffusers() -> None:
    parameters = inspect.signature(WuerstchenPrior.__init__).parameters
    expected = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    assert asdict(StageCConfig()) == expected


def test_weights_start_as_published() -> None:
    stage_c = StageC.from_config(SMALL | {"depth": 9})
    output = stage_c.out[1]
    assert isinstance(output, nn.Conv2d)
    assert not output.weight.any()
    for block in stage_c.blocks:
        if isinstance(block, ResidualBlock):
            bound = math.sqrt(6 / (24 + 96)) / math.sqrt(9)
            assert bound / 2 < float(block.output.weight.detach().abs().max()) <= bound
        elif isinstance(block, TimestepBlock):
            assert not block.mapper.weight.any()
    x, r, c = inputs(SMALL, (3, 4))
    torch.testing.assert_close(stage_c(x, r, c), x / (1 + 1e-5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "unknown configuration keys heads; known are c_in"),
        ({"nhead": 5}, "nhead 5 does not divide c 24"),
        ({"c_r": 2}, "c_r is 2; it must be at least 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_inconsistent_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StageC.from_config(SMALL | change)
