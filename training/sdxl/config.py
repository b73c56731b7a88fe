"""The configurations of `storybook-sdxl`: those of the published components, with small sizes."""

from __future__ import annotations

from typing import Any, Final, cast

from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn

SIZE: Final = 256
"""Side of a picture in pixels."""

GRID: Final = SIZE // 8
"""Side of a picture's latents."""

VAE: Final[dict[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": [48, 48, 48, 48],
    "decoder_block_out_channels": [48, 48, 48, 48],
    "num_encoder_blocks": [0, 0, 2, 3],
    "num_decoder_blocks": [3, 2, 1, 0],
    "latent_channels": 4,
    "scaling_factor": 1.0,
}

TEXT: Final = {"width": 64, "layers": 2, "heads": 2}
TEXT_2: Final = {"width": 128, "layers": 3, "heads": 4}
POOLED: Final = 128
"""Width of the pooled embedding, the second text encoder's projection."""

UNET: Final[dict[str, Any]] = {
    "sample_size": GRID,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [64, 96, 144],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 1, 1],
    "attention_head_dim": [2, 3, 4],
    "norm_num_groups": 16,
    "cross_attention_dim": TEXT["width"] + TEXT_2["width"],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 6 * 32 + POOLED,
}

SCHEDULER: Final[dict[str, Any]] = {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}


def vae() -> nn.Module:
    """The tiny VAE with initial weights."""
    return cast(nn.Module, AutoencoderTiny(**VAE))


def unet() -> nn.Module:
    """The UNet with initial weights."""
    return cast(nn.Module, UNet2DConditionModel(**UNET))
