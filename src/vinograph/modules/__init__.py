"""PyTorch modules of Würstchen: its three stages and its image encoder.

They load the published weights, they are what conversion traces, and they are what `training/` trains.
"""

from .image_encoder import EncoderStage, ImageEncoder, ImageEncoderConfig
from .stage_a import Quantized, StageA, StageAConfig
from .stage_b import StageB, StageBConfig
from .stage_c import StageC, StageCConfig

__all__ = [
    "EncoderStage",
    "ImageEncoder",
    "ImageEncoderConfig",
    "Quantized",
    "StageA",
    "StageAConfig",
    "StageB",
    "StageBConfig",
    "StageC",
    "StageCConfig",
]
