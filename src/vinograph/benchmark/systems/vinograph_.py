"""Vinograph itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from vinograph import Pipeline
from vinograph.components import has_low_bit_weights

from .common import DrawResult, OpenedSystem, Task


def open_system(task: Task) -> OpenedSystem:
    """Open the model; its components are read and compiled while the first picture is drawn."""
    pipe = _open(task)

    def draw(prompt: str) -> DrawResult:
        result = pipe(prompt, seed=task.seed, **_settings(task))
        pictures = (np.asarray(result.images) * 255).round().astype(np.uint8)
        return DrawResult(pictures, dict(result.timings), dict(result.devices))

    return OpenedSystem(draw)


def prepare(task: Task) -> None:
    """Measure the settings of weights in int8 and int4 that aren't known, and keep them.

    The processes that draw then know them. A picture is drawn to find the sizes.
    """
    pipe = _open(task, tune=True)
    if any(has_low_bit_weights(pipe.model, name) for name in pipe.model.manifest.components):
        pipe(task.prompts[0], seed=task.seed, **_settings(task))


def _open(task: Task, *, tune: bool = False) -> Pipeline:
    return Pipeline.from_pretrained(
        task.source,
        device=task.device,
        precision=task.precision,
        memory=task.memory,
        vae=task.sources.get("vae"),
        base=task.sources.get("base"),
        tune=tune,
    )


def _settings(task: Task) -> dict[str, Any]:
    return {**task.settings, "num_images_per_prompt": task.count, "output_type": "np"}
