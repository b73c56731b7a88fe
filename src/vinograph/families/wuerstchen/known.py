"""Würstchen checkpoints with a short name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vinograph.families.known import Companion, KnownModel

# Measured by python -m benchmarks.fewer_evaluations, on storybook-wuerstchen.
SPEEDS: Mapping[str, Mapping[str, Any]] = {
    "balanced": {
        "extrapolation_interval": 2,
        "guidance_interval": (0.0, 0.6),
        "decoder_scheduler": "dpm++ 2m",
        "num_inference_steps": 6,
    },
    "fast": {
        "scheduler": "dpm++ 2m",
        "prior_num_inference_steps": 12,
        "guidance_interval": (0.0, 0.6),
        "decoder_scheduler": "dpm++ 2m",
        "num_inference_steps": 6,
    },
}
"""What each speed stands for."""

KNOWN = (
    KnownModel(
        name="wuerstchen",
        repository="warp-ai/wuerstchen",
        licence="mit",
        download=12_300_000_000,
        about="1024×1024 up to 2048×2048, with most steps in a 42× compressed space",
        companions=(
            Companion("prior", "warp-ai/wuerstchen-prior", "mit", "draws image embeddings of a text"),
            # A pickle with all of Stage B's training state, of which the encoder is a small part.
            Companion(
                "image_encoder",
                "dome272/wuerstchen",
                "mit",
                "encodes pictures, for image to image and reconstruction; a file of several GB",
                file="model_v2_stage_b.pt",
                optional=True,
            ),
        ),
    ),
)
