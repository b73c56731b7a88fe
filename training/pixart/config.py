"""The configurations of `storybook-pixart`: those of the published components, with small sizes."""

from __future__ import annotations

from typing import Any, Final, cast

from diffusers import PixArtTransformer2DModel
from torch import nn

SIZE: Final = 256
"""Side of a square picture in pixels."""

GRID: Final = SIZE // 8
"""Side of a square picture's latents."""

FRAMES: Final = ((320, 192), (288, 224), (224, 288), (192, 320))
"""Widths and heights of the other training pictures, from PixArt's table of aspect ratios."""

LENGTH: Final = 40
"""Length in tokens of training captions; every caption of the grammar is shorter."""

TEXT: Final[dict[str, Any]] = {
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
}

TRANSFORMER: Final[dict[str, Any]] = {
    "num_attention_heads": 3,
    "attention_head_dim": 64,
    "num_layers": 5,
    "cross_attention_dim": 192,
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": GRID,
    "patch_size": 2,
    "caption_channels": TEXT["d_model"],
}

_BETAS: Final[dict[str, Any]] = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
}

SCHEDULER: Final[dict[str, Any]] = {
    "_class_name": "DPMSolverMultistepScheduler",
    **_BETAS,
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "timestep_spacing": "linspace",
    "thresholding": False,
    "use_karras_sigmas": False,
}

LCM_SCHEDULER: Final[dict[str, Any]] = {
    "_class_name": "LCMScheduler",
    **_BETAS,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
    "timestep_spacing": "leading",
    "set_alpha_to_one": True,
    "clip_sample": False,
    "thresholding": False,
    "rescale_betas_zero_snr": False,
}


def transformer() -> nn.Module:
    """The transformer with initial weights."""
    return cast(nn.Module, PixArtTransformer2DModel(**TRANSFORMER))
