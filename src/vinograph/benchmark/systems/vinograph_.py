"""Vinograph itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from vinograph import Pipeline
from vinograph.runtime.tuning import MEASURED

from .common import Drawn, Opened, Task


def open_system(task: Task) -> Opened:
    """Open the bundle; its components are read and compiled while the first picture is drawn."""
    pipe = Pipeline.from_pretrained(task.source, device=task.device, precision=task.precision, memory=task.memory)
    settings: dict[str, Any] = {**task.settings, "num_images_per_prompt": task.count, "output_type": "np"}

    def draw(prompt: str) -> Drawn:
        result = pipe(prompt, seed=task.seed, **settings)
        pictures = (np.asarray(result.images) * 255).round().astype(np.uint8)
        once = [each for each in result.warnings if each.startswith(MEASURED)]
        return Drawn(pictures, dict(result.timings), dict(result.devices), once)

    return Opened(draw)
