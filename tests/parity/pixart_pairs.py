"""A small PixArt checkpoint in our pipeline, by all ways, and in diffusers' pipelines."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from tests.checkpoints import PixArtModels, PixArtShape, save_pixart
from tests.parity.ways import AllWays
from vinograph import Result
from vinograph.convert import convert
from vinograph.schedulers import make_sampler, read_scheduler_config

Array = NDArray[np.float32]

_DIFFUSERS: Any = diffusers


@dataclass(frozen=True)
class PixArtPair:
    """Our pipeline and diffusers' models of one checkpoint."""

    ours: AllWays
    models: PixArtModels

    def with_scheduler(self, name: str, **changes: Any) -> PixArtPair:
        """Both with another scheduler and the same noise schedule."""
        scheduler = getattr(_DIFFUSERS, name).from_config(self.models.scheduler.config, **changes)
        ours = self.ours.with_sampler(make_sampler(read_scheduler_config({**scheduler.config, "_class_name": name})))
        return PixArtPair(ours, dataclasses.replace(self.models, scheduler=scheduler))

    def draw(self, prompt: Any = "a red house", *, vae: str = "full", **given: Any) -> tuple[Array, Array]:
        """Generate with both from the same arguments, from ``seed`` (3) without a generator."""
        given = {"output_type": "np", **given}
        if "generator" not in given:
            given["seed"] = given.get("seed", 3)
        return np.asarray(self.result(prompt, vae=vae, **given).images), self.draw_theirs(prompt, vae=vae, **given)

    def result(self, prompt: Any = "a red house", *, vae: str = "full", **given: Any) -> Result:
        """Our result, with its record and warnings."""
        if callable(generator := given.get("generator")):
            given["generator"] = generator()
        drawn: Result = self.ours(prompt, **{"output_type": "np", "vae": vae, **given})
        return drawn

    def draw_theirs(self, prompt: Any = "a red house", *, vae: str = "full", **given: Any) -> Array:
        """diffusers' pictures; a callable ``generator`` is called by each side."""
        if callable(generator := given.get("generator")):
            given["generator"] = generator()
        if (seed := given.pop("seed", None)) is not None:
            count = given.get("num_images_per_prompt", 1) * (len(prompt) if isinstance(prompt, list) else 1)
            each = [torch.Generator().manual_seed(seed + i) for i in range(count)]
            given["generator"] = each[0] if count == 1 else each
        given = {name: torch.tensor(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
        pipeline = self.models.pipeline(tiny=vae == "tiny")
        pipeline.set_progress_bar_config(disable=True)
        return np.asarray(pipeline(prompt, **{"output_type": "np", **given}).images)


def make_pair(folder: Path, shape: PixArtShape, seed: int = 0) -> PixArtPair:
    """Build a random checkpoint, convert it in f32 with both VAEs, and open all pipelines."""
    saved = save_pixart(folder, shape, seed)
    bundle = convert(saved.home, folder / "bundle", weights="f32", tiny_vae=str(saved.tiny_vae))
    if not (saved.home / "tiny_vae").exists():
        shutil.copytree(saved.tiny_vae, saved.home / "tiny_vae")  # so the directory has both VAEs
    ours = AllWays.opened(saved.home, bundle)
    return PixArtPair(ours, saved.models)
