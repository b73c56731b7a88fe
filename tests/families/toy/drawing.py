"""The toy's loop. Shapes are [batch, channels, height, width]."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vinograph.families.contract import Array, Components, Output, Step, Steps
from vinograph.families.shared import first_picture

from .conditioning import encode_conditioning

if TYPE_CHECKING:
    from .arguments import ToyRequest
    from .config import ToyConfig


def generate(components: Components[ToyConfig], request: ToyRequest) -> Steps:
    """Text to image."""
    out, total = Output(), request.num_inference_steps or 0
    shape = (request.image_count, components.config.channels, request.height or 0, request.width or 0)
    sample, text = request.noise().normal(shape), encode_conditioning(components, request, out)
    for index in range(total):
        time = np.full(len(sample), index / total, np.float32)
        with out.timed("smoother"):
            sample = components.sessions["smoother"]({"sample": sample, "timestep": time, "text": text})["out_sample"]
        yield Step("smoother", index + 1, total, partial(_preview, sample))
    if request.output_type == "latent":
        out.latents = sample
        return out
    out.images = _pictures(sample * np.float32(request.contrast or 1))
    return out


def _pictures(sample: Array) -> Array:
    return np.ascontiguousarray(np.clip(sample * 0.5 + 0.5, 0, 1).transpose(0, 2, 3, 1))


def _preview(sample: Array) -> Image.Image:
    return first_picture(_pictures(sample))
