"""LDM's names of the UNet's modules are those that diffusers' own converter reads."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils

from vinograph.families.sdxl.ldm_names import ldm_modules, ldm_to_diffusers
from vinograph.families.sdxl.network_config import UNetConfig

LIBRARY: Any = diffusers
CONVERTER: Any = single_file_utils
DOWN, DOWN_TEXT, UP, UP_TEXT = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 24),
    "down_block_types": (DOWN, DOWN_TEXT, DOWN_TEXT),
    "up_block_types": (UP_TEXT, UP_TEXT, UP),
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 6,
    "projection_class_embeddings_input_dim": 46,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "sdxl": {},
    "ssd-1b": {
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": (1, (2, 2), (4, 4)),
        "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
    },
    "vega": {
        "mid_block_type": None,
        "transformer_layers_per_block": (1, (1, 1), (2, 2)),
        "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), 1),
    },
    "one layer": {"layers_per_block": 1},
    "three layers": {"layers_per_block": 3},
    "two levels": {
        "block_out_channels": (8, 16),
        "down_block_types": (DOWN, DOWN_TEXT),
        "up_block_types": (UP_TEXT, UP),
        "transformer_layers_per_block": (1, 2),
    },
    "four levels": {
        "block_out_channels": (8, 16, 24, 24),
        "down_block_types": (DOWN_TEXT, DOWN, DOWN_TEXT, DOWN),
        "up_block_types": (UP, UP_TEXT, UP, UP_TEXT),
        "transformer_layers_per_block": (1, 2, 1, 2),
    },
    "one width, and two that skips add up to": {"block_out_channels": (8, 8, 16), "attention_head_dim": 2},
    "no text": {"down_block_types": (DOWN,) * 3, "up_block_types": (UP,) * 3},
}


def unet(config: dict[str, Any]) -> torch.nn.Module:
    with torch.device("meta"):
        module: torch.nn.Module = LIBRARY.UNet2DConditionModel(**config)
    return module


@pytest.mark.parametrize("name", CONFIGS)
def test_diffusers_reads_the_names_back(name: str) -> None:
    config = UNET | CONFIGS[name]
    module, ours = unet(config), UNetConfig.from_mapping({k: _listed(v) for k, v in config.items()})
    ldm = _ldm_tensors(module, ours)
    file = {f"model.diffusion_model.{name}": tensor for name, tensor in ldm.items()}
    converted = CONVERTER.convert_ldm_unet_checkpoint(file, dict(module.config))  # type: ignore[arg-type]
    assert {each: tensor.shape for each, tensor in converted.items()} == {
        each: tensor.shape for each, tensor in module.state_dict().items()
    }
    back = ldm_to_diffusers(ours)
    assert [back(each) for each in ldm] == [*module.state_dict()]


def test_each_module_of_the_table_has_weights() -> None:
    for changes in CONFIGS.values():
        config = UNET | changes
        tensors = unet(config).state_dict()
        modules = ldm_modules(UNetConfig.from_mapping({k: _listed(v) for k, v in config.items()}))
        for module in modules:
            assert f"{module}.weight" in tensors or f"{module}.proj_in.weight" in tensors
        assert len({*modules.values()}) == len(modules)


@pytest.mark.parametrize(
    ("ldm", "expected"),
    [
        ("input_blocks.4.1", "down_blocks.1.attentions.0"),
        (
            "input_blocks.8.1.transformer_blocks.9.attn1.to_q.weight",
            "down_blocks.2.attentions.1.transformer_blocks.9.attn1.to_q.weight",
        ),
        ("input_blocks.3.0.op.bias", "down_blocks.0.downsamplers.0.conv.bias"),
        ("middle_block.1.proj_in.weight", "mid_block.attentions.0.proj_in.weight"),
        ("output_blocks.2.2.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
        ("output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"),
        ("output_blocks.8.0.skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
        ("label_emb.0.2.weight", "add_embedding.linear_2.weight"),
        ("input_blocks.1.0.skip_connection.weight", None),
        ("input_blocks.9.0.in_layers.0.weight", None),
        ("input_blocks", None),
        ("", None),
    ],
)
def test_names_of_sdxl(ldm: str, expected: str | None) -> None:
    config = UNetConfig.from_mapping(
        {k: _listed(v) for k, v in UNET.items()} | {"transformer_layers_per_block": [1, 2, 10]}
    )
    assert ldm_to_diffusers(config)(ldm) == expected


def _ldm_tensors(module: torch.nn.Module, config: UNetConfig) -> dict[str, torch.Tensor]:
    """The module's tensors under LDM's names."""
    modules = ldm_modules(config)
    found = {}
    for name, tensor in module.state_dict().items():
        owner = next(each for each in modules if name.startswith(f"{each}."))
        found[modules[owner] + name.removeprefix(owner)] = tensor
    return found


def _listed(value: Any) -> Any:
    """The value as JSON has it: lists instead of tuples."""
    return [_listed(each) for each in value] if isinstance(value, tuple) else value
