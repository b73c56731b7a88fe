"""Configurations of fine-tuned and distilled models, compared with diffusers' classes."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from tests.checkpoints import randomise
from tests.convert.running import assert_equal
from tests.networks.agreement import run, tensors_of
from vinograph.families.sdxl.network import unet
from vinograph.families.sdxl.network_config import UNetConfig
from vinograph.networks.graph import Network, Weights
from vinograph.networks.tiny_vae import TinyAutoencoderConfig, tiny_vae_decoder, tiny_vae_encoder
from vinograph.networks.vae import AutoencoderConfig, vae_decoder, vae_encoder

LIBRARY: Any = diffusers
DOWN, DOWN_TEXT, UP, UP_TEXT = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"

UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 24),
    "down_block_types": (DOWN, DOWN_TEXT, DOWN_TEXT),
    "up_block_types": (UP_TEXT, UP_TEXT, UP),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "transformer_layers_per_block": (1, 2, 1),
    "attention_head_dim": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 6,
    "projection_class_embeddings_input_dim": 10 + 36,
}


def weights_of(module: torch.nn.Module) -> Weights:
    return Weights(tensors_of(module), "the checkpoint")


def assert_computes(network: Network, inputs: dict[str, torch.Tensor], expected: torch.Tensor) -> None:
    assert_equal(torch.from_numpy(run(network, inputs)[0]), expected)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"use_linear_projection": False},
        {"mid_block_type": "UNetMidBlock2D"},
        {"mid_block_type": None},
        {"layers_per_block": (1, 2, 1), "attention_head_dim": 4},
        {"layers_per_block": 1, "down_block_types": (DOWN_TEXT, DOWN, DOWN_TEXT), "up_block_types": (UP_TEXT, UP, UP_TEXT)},
        {
            "transformer_layers_per_block": (1, (2, 1), (1, 3)),
            "reverse_transformer_layers_per_block": ((1, 2, 1), 1, 1),
            "mid_block_type": "UNetMidBlock2D",
        },
        {"flip_sin_to_cos": False, "freq_shift": 1},
        {"addition_time_embed_dim": 5, "projection_class_embeddings_input_dim": 10 + 30},
        {"time_embedding_dim": 20, "norm_eps": 1e-3},
        {"cross_attention_dim": (12, 12, 12), "time_cond_proj_dim": 5},
        {"block_out_channels": (8,), "down_block_types": (DOWN_TEXT,), "up_block_types": (UP_TEXT,)}
        | {"transformer_layers_per_block": 2, "attention_head_dim": 2},
    ],
)  # fmt: skip
def test_unets(change: dict[str, Any]) -> None:
    theirs = LIBRARY.UNet2DConditionModel(**{**UNET, **change})
    randomise(theirs, torch.Generator().manual_seed(0))
    sample, time, text = torch.randn(2, 4, 9, 6), torch.tensor([999.0, 0.5]), torch.randn(2, 5, 12)
    pooled, sizes = torch.randn(2, 10), 1000 * torch.rand(2, 6)
    guidance = torch.randn(2, 5) if "time_cond_proj_dim" in change else None
    conditions = {"text_embeds": pooled, "time_ids": sizes}
    expected = theirs(sample, time, text, timestep_cond=guidance, added_cond_kwargs=conditions).sample
    inputs = {"sample": sample, "timestep": time, "encoder_hidden_states": text, **conditions}
    weights = weights_of(theirs)
    network = unet(UNetConfig.from_mapping(dict(theirs.config)), weights)
    weights.check_all_used()
    assert_computes(network, inputs if guidance is None else {**inputs, "timestep_cond": guidance}, expected)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"mid_block_add_attention": False},
        {"use_quant_conv": False, "use_post_quant_conv": False},
        {"layers_per_block": 2},
        {"latent_channels": 5},
    ],
)
def test_autoencoders(change: dict[str, Any]) -> None:
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    theirs = LIBRARY.AutoencoderKL(**{"block_out_channels": (8, 12), "norm_num_groups": 4, **kinds, **change})
    randomise(theirs, torch.Generator().manual_seed(0))
    config, weights = AutoencoderConfig.from_mapping(dict(theirs.config)), weights_of(theirs)
    picture, latents = 2 * torch.rand(2, 3, 12, 10) - 1, torch.randn(2, change.get("latent_channels", 4), 5, 6)
    encoded, decoded = theirs.encode(picture).latent_dist.parameters, theirs.decode(latents).sample
    assert_computes(vae_encoder(config, weights), {"sample": picture}, encoded)
    assert_computes(vae_decoder(config, weights), {"latent_sample": latents}, decoded)
    weights.check_all_used()


@pytest.mark.parametrize(
    "change",
    [
        {"act_fn": "gelu"},
        {"encoder_block_out_channels": (6, 6), "num_encoder_blocks": (2, 1)},
        {"decoder_block_out_channels": (6, 6, 6), "num_decoder_blocks": (1, 0, 2)},
    ],
)
def test_tiny_autoencoders(change: dict[str, Any]) -> None:
    theirs = LIBRARY.AutoencoderTiny(**change)
    randomise(theirs, torch.Generator().manual_seed(0))
    config, weights = TinyAutoencoderConfig.from_mapping(dict(theirs.config)), weights_of(theirs)
    picture, latents = 2 * torch.rand(2, 3, 24, 16) - 1, 4 * torch.randn(2, 4, 3, 2)
    assert_computes(tiny_vae_encoder(config, weights), {"sample": picture}, theirs.encode(picture).latents)
    assert_computes(tiny_vae_decoder(config, weights), {"latent_sample": latents}, theirs.decode(latents).sample)
    weights.check_all_used()
