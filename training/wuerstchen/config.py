"""The configurations of `storybook-wuerstchen`: the published components, in small sizes."""

from __future__ import annotations

from typing import Any, Final

from torch import nn

from training.wuerstchen.modules import ImageEncoder, StageA, StageB, StageC

SIZE: Final = 256
"""Side of a picture in pixels."""

STAGE_A: Final[dict[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "up_down_scale_factor": 2,
    "levels": 2,
    "bottleneck_blocks": 3,
    "embed_dim": 64,
    "latent_channels": 4,
    "num_vq_embeddings": 1024,
    "scale_factor": 1.0,
}

IMAGE_ENCODER: Final[dict[str, Any]] = {
    "c_latent": 16,
    "stem": 24,
    "stages": [
        {"kind": "fused", "expand_ratio": 1, "kernel": 3, "stride": 2, "c_out": 48, "layers": 1},
        {"kind": "fused", "expand_ratio": 2, "kernel": 3, "stride": 2, "c_out": 80, "layers": 2},
        {"kind": "fused", "expand_ratio": 2, "kernel": 3, "stride": 2, "c_out": 112, "layers": 2},
        {"kind": "plain", "expand_ratio": 4, "kernel": 3, "stride": 2, "c_out": 144, "layers": 2},
    ],
    "head": 256,
}

STAGE_B: Final[dict[str, Any]] = {
    "c_in": 4,
    "c_out": 4,
    "c_r": 64,
    "patch_size": 2,
    "c_cond": 64,
    "c_hidden": [96, 192, 192],
    "nhead": [-1, -1, 4],
    "blocks": [1, 3, 1],
    "level_config": ["CT", "CT", "CTA"],
    "inject_effnet": [True, True, True],
    "effnet_embd": 16,
    "clip_embd": 64,
    "kernel_size": 3,
    "dropout": 0.0,
}

STAGE_C: Final[dict[str, Any]] = {
    "c_in": 16,
    "c": 192,
    "c_cond": 128,
    "c_r": 64,
    "depth": 6,
    "nhead": 6,
    "dropout": 0.0,
}

PRIOR_TEXT: Final = {"width": 128, "layers": 3, "heads": 4}
DECODER_TEXT: Final = {"width": 64, "layers": 1, "heads": 2}

EMBEDDING_SCALE: Final = 42.0
"""Image embeddings are 42 z − 1 for the prior's codes z, as the published pipeline assumes."""


def stage_a() -> StageA:
    """Stage A with initial weights."""
    return StageA.from_config(STAGE_A)


def image_encoder() -> ImageEncoder:
    """The image encoder with initial weights, and with its last norm frozen.

    That norm scales its output to 42 z − 1 with codes z of unit variance.
    """
    encoder = ImageEncoder.from_config(IMAGE_ENCODER)
    norm = encoder.mapper[1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.constant_(norm.weight, EMBEDDING_SCALE)
    nn.init.constant_(norm.bias, -1.0)
    norm.requires_grad_(False)
    return encoder


def stage_b() -> StageB:
    """Stage B with initial weights."""
    return StageB.from_config(STAGE_B)


def stage_c() -> StageC:
    """Stage C with initial weights."""
    return StageC.from_config(STAGE_C)
