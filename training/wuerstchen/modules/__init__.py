"""PyTorch modules of Würstchen: its three stages and its image encoder.

They load the published weights, the recipes train them, and the OpenVINO graphs are tested against
them.
"""

from vinograph.families.wuerstchen.network_config import (
    EncoderStage,
    ImageEncoderConfig,
    StageAConfig,
    StageBConfig,
    StageCConfig,
)

from .image_encoder import ImageEncoder
from .stage_a import Quantized, StageA
from .stage_b import StageB
from .stage_c import StageC

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
