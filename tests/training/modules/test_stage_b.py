import inspect
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import WuerstchenDiffNeXt
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
from training.wuerstchen.modules import StageB, StageBConfig
from training.wuerstchen.modules.blocks import ResidualBlock, TimestepBlock

SMALL: dict[str, Any] = {
    "c_r": 8,
    "c_cond": 12,
    "c_hidden": [8, 16, 24],
    "nhead": [-1, 2, 3],
    "blocks": [1, 2, 1],
    "level_config": ["CT", "CTA", "CTA"],
    "inject_effnet": [False, True, True],
    "effnet_embd": 5,
    "clip_embd": 7,
    "dropout": 0.1,
}
CONFIGS = {
    "three levels": SMALL,
    "everything injected, dropout by level": SMALL | {"inject_effnet": [True, True, True], "dropout": [0.0, 0.1, 0.2]},
    "nothing injected": SMALL | {"inject_effnet": [False, False, False]},
    "injected at the top": SMALL | {"inject_effnet": [True, False, False]},
    "odd time embedding": SMALL | {"c_r": 9},
    "no patches": SMALL | {"patch_size": 1},
    "patches of four": SMALL | {"patch_size": 4},
    "kernel of five": SMALL | {"kernel_size": 5},
    "blocks in other orders": SMALL | {"level_config": ["TC", "ACT", "TAC"], "nhead": [-1, 4, 2]},
    "repetitions": SMALL | {"blocks": [2, 1, 3], "level_config": ["CCT", "CA", "CTA"], "nhead": [-1, 1, 6]},
    "an empty level": SMALL | {"blocks": [1, 0, 1]},
    "one level": SMALL
    | {"c_hidden": [12], "nhead": [3], "blocks": [2], "level_config": ["CTA"], "inject_effnet": [True]},
    "six channels": SMALL | {"c_in": 6, "c_out": 6},
}
WITHOUT_TEXT = SMALL | {"level_config": ["CT", "CT", "CT"]}


def pair(config: dict[str, Any]) -> tuple[StageB, WuerstchenDiffNeXt]:
    ours, theirs = StageB.from_config(published(config)), WuerstchenDiffNeXt(**config)
    exchange_weights(ours, theirs)
    return ours.eval(), theirs.eval()


def inputs(config: dict[str, Any], size: tuple[int, int], embeddings: tuple[int, int]) -> list[torch.Tensor]:
    return [
        noise(2, config.get("c_in", 4), *size),
        times(2),
        # Published embeddings reach ±200.
        40 * noise(2, config["effnet_embd"], *embeddings, seed=2),
        noise(2, 6, config["clip_embd"], seed=3),
    ]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_noise_agrees_with_diffusers(config: dict[str, Any]) -> None:
    ours, theirs = pair(config)
    arguments = inputs(config, (16, 16), (3, 3))
    with torch.no_grad():
        assert_same(ours(*arguments), theirs(*arguments))


@pytest.mark.parametrize(
    ("size", "embeddings"),
    [((16, 24), (3, 4)), ((32, 8), (6, 2)), ((8, 8), (8, 8)), ((16, 16), (11, 19)), ((8, 8), (1, 1))],
    ids=str,
)
def test_sizes_agree_with_diffusers(size: tuple[int, int], embeddings: tuple[int, int]) -> None:
    ours, theirs = pair(SMALL)
    arguments = inputs(SMALL, size, embeddings)
    with torch.no_grad():
        assert_same(ours(*arguments), theirs(*arguments))


def test_both_parts_of_the_noise_agree_with_diffusers() -> None:
    ours, theirs = pair(SMALL | {"c_out": 3})
    arguments = inputs(SMALL, (16, 16), (3, 3))
    with torch.no_grad():
        for mine, other in zip(
            ours(*arguments, return_noise=False), theirs(*arguments, return_noise=False), strict=True
        ):
            assert_same(mine, other)


def test_without_text_agrees_with_diffusers() -> None:
    ours, theirs = pair(WITHOUT_TEXT)
    arguments = inputs(WITHOUT_TEXT, (16, 16), (3, 3))[:3]
    with torch.no_grad():
        assert_same(ours(*arguments), theirs(*arguments))


def test_gradients_agree_with_diffusers() -> None:
    ours, theirs = (module.train() for module in pair(SMALL | {"dropout": 0.0}))
    arguments = inputs(SMALL, (16, 24), (3, 4))
    ours(*arguments).square().mean().backward()
    theirs(*arguments).square().mean().backward()
    assert_same_gradients(ours, theirs)


def test_attention_without_text_is_refused() -> None:
    ours, _ = pair(SMALL)
    with pytest.raises(ValueError, match="clip is None"):
        ours(*inputs(SMALL, (16, 16), (3, 3))[:3])


def test_embeddings_resized_once_serve_every_step() -> None:
    ours, _ = pair(SMALL)
    x, r, effnet, clip = inputs(SMALL, (16, 24), (3, 4))
    with torch.no_grad():
        resized = ours.resized_embeddings(effnet, 16, 24)
        assert [None if grid is None else tuple(grid.shape[2:]) for grid in resized] == [None, (4, 6), (2, 3)]
        a, b = ours.predict(x, r, resized, clip)
        assert torch.equal((x - a) / b, ours(x, r, effnet, clip))


def test_published_names_and_shapes_are_those_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    # diffusers initialises all weights once for every module, which takes seconds and is irrelevant
    # here.
    monkeypatch.setattr(WuerstchenDiffNeXt, "_init_weights", lambda self, module: None)
    with torch.device("meta"):
        ours, theirs = StageB.from_config({}), WuerstchenDiffNeXt()
    assert shapes(ours) == shapes(theirs)
    assert round(sum(parameter.numel() for parameter in ours.parameters()) / 1e6) == 1055


def test_absent_keys_take_the_values_of_diffusers() -> None:
    parameters = inspect.signature(WuerstchenDiffNeXt.__init__).parameters
    expected = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(StageBConfig()).items()} == expected


def test_weights_start_as_published() -> None:
    stage_b = StageB.from_config(SMALL)
    patches, output = stage_b.embedding[1], stage_b.clf[1]
    assert isinstance(patches, nn.Conv2d)
    assert isinstance(output, nn.Conv2d)
    assert not output.weight.any()
    assert float(patches.weight.detach().abs().max()) <= 0.02 * math.sqrt(6 / (16 + 8))
    for block in stage_b.modules():
        if isinstance(block, ResidualBlock):
            bound = math.sqrt(6 / sum(block.output.weight.shape)) / math.sqrt(4)
            assert bound / 2 < float(block.output.weight.detach().abs().max()) <= bound
        elif isinstance(block, TimestepBlock):
            assert not block.mapper.weight.any()
    x, r, effnet, clip = inputs(SMALL, (16, 16), (3, 3))
    torch.testing.assert_close(stage_b(x, r, effnet, clip), 2 * x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nhed": [1]}, "unknown configuration keys nhed; known are c_in"),
        ({"blocks": [1, 2]}, "blocks has 2 levels, c_hidden has 3"),
        ({"dropout": [0.1]}, "dropout has 1 levels, c_hidden has 3"),
        ({"nhead": [-1, 3, 3]}, "nhead 3 does not divide c_hidden 16"),
        ({"nhead": [-1, -1, 3]}, "nhead -1 does not divide c_hidden 16"),
        ({"level_config": ["CT", "CTF", "C"]}, "level_config has 'CTF'; the kinds are C, T and A"),
        ({"kernel_size": 4}, "kernel_size is 4; it must be odd"),
        ({"c_r": 3}, "c_r is 3; it must be at least 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_inconsistent_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StageB.from_config(SMALL | change)
