"""Vinograph itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from vinograph import Pipeline
from vinograph.runtime.tuning import MEASURED

from .common import DrawResult, OpenedSystem, Task


def open_system(task: Task) -> OpenedSystem:
    """Open the model; its components are read and compiled while the first picture is drawn."""
    pipe = Pipeline.from_pretrained(
        task.source,
        device=task.device,
        precision=task.precision,
        memory=task.memory,
        vae=task.sources.get("vae"),
        base=task.sources.get("base"),
    )
    settings: dict[str, Any] = {**task.settings, "num_images_per_prompt": task.count, "output_type": "np"}

    def draw(prompt: str) -> DrawResult:
        result = pipe(prompt, seed=task.seed, **settings)
        pictures = (np.asarray(result.images) * 255).round().astype(np.uint8)
        one_time_work = [each for each in result.warnings if each.startswith(MEASURED)]
        return DrawResult(pictures, dict(result.timings), dict(result.devices), one_time_work)

    return OpenedSystem(draw)
