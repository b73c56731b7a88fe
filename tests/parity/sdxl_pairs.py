"""A small SDXL checkpoint in our pipeline, by all ways, and in diffusers' pipelines."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.checkpoints import SdxlShape, save_sdxl
from tests.parity.ways import AllWays
from vinograph.convert import convert
from vinograph.schedulers import make_sampler, read_scheduler_config

Array = NDArray[np.float32]

_DIFFUSERS: Any = diffusers
_KINDS = {
    "text": "StableDiffusionXLPipeline",
    "image": "StableDiffusionXLImg2ImgPipeline",
    "mask": "StableDiffusionXLInpaintPipeline",
}


@dataclass(frozen=True)
class SdxlPair:
    """Our pipeline and diffusers' components of one checkpoint."""

    ours: AllWays
    parts: dict[str, Any]
    tiny_vae: Any

    def with_scheduler(self, name: str, **changes: Any) -> SdxlPair:
        """Both with another scheduler and the same noise schedule."""
        scheduler = getattr(_DIFFUSERS, name).from_config(self.parts["scheduler"].config, **changes)
        ours = self.ours.with_sampler(make_sampler(read_scheduler_config({**scheduler.config, "_class_name": name})))
        return SdxlPair(ours, {**self.parts, "scheduler": scheduler}, self.tiny_vae)

    def theirs(self, kind: str, vae: str) -> Any:
        """diffusers' pipeline for text, for an image, or for a mask."""
        parts = {**self.parts, "vae": self.tiny_vae if vae == "tiny" else self.parts["vae"]}
        pipeline = getattr(_DIFFUSERS, _KINDS[kind])(**parts, add_watermarker=False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, prompt: Any = "a red house", *, vae: str = "full", **given: Any) -> tuple[Array, Array]:
        """Generate with both from the same arguments, from ``seed`` (3) without a generator."""
        given = {"output_type": "np", **given}
        if "generator" not in given:
            given["seed"] = given.get("seed", 3)
        return self.draw_ours(prompt, vae=vae, **given), self.draw_theirs(prompt, vae=vae, **given)

    def draw_ours(self, prompt: Any = "a red house", *, vae: str = "full", **given: Any) -> Array:
        """Our pictures."""
        if callable(generator := given.get("generator")):
            given["generator"] = generator()
        return np.asarray(self.ours(prompt, **{"output_type": "np", "vae": vae, **given}).images)

    def draw_theirs(self, prompt: Any = "a red house", *, vae: str = "full", **given: Any) -> Array:
        """diffusers' pictures; a callable ``generator`` is called by each side."""
        if callable(generator := given.get("generator")):
            given["generator"] = generator()
        if (seed := given.pop("seed", None)) is not None:
            count = given.get("num_images_per_prompt", 1) * (len(prompt) if isinstance(prompt, list) else 1)
            each = [torch.Generator().manual_seed(seed + i) for i in range(count)]
            given["generator"] = each[0] if count == 1 else each
        given = {name: torch.tensor(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
        kind = "mask" if "mask_image" in given else "image" if "image" in given else "text"
        return np.asarray(self.theirs(kind, vae)(prompt, **{"output_type": "np", **given}).images)


def make_pair(folder: Path, shape: SdxlShape, seed: int = 0) -> SdxlPair:
    """Build a random checkpoint, convert it in f32 with both VAEs, and open all pipelines."""
    saved = save_sdxl(folder, shape, seed)
    bundle = convert(saved.home, folder / "bundle", weights="f32", tiny_vae=str(saved.tiny_vae))
    if not (saved.home / "tiny_vae").exists():
        shutil.copytree(saved.tiny_vae, saved.home / "tiny_vae")  # so the directory has both VAEs
    ours = AllWays.opened(saved.home, bundle)
    parts = dict(saved.models.pipeline().components)
    parts = {name: part for name, part in parts.items() if part is not None}
    return SdxlPair(ours, parts, saved.models.tiny_vae)


def picture(width: int = 64, height: int = 64) -> Image.Image:
    """A picture with colours, edges and some noise in it."""
    rows, columns = np.mgrid[0:height, 0:width] / max(width, height)
    smooth = np.stack([rows, columns, 0.5 + 0.5 * np.sin(9 * (rows - columns))], axis=2)
    smooth[height // 4 : height // 2, width // 3 : width // 2] = (0.9, 0.2, 0.1)
    rough = smooth + np.random.RandomState(0).normal(0, 0.02, smooth.shape)
    return Image.fromarray((np.clip(rough, 0, 1) * 255).round().astype(np.uint8))


def mask(width: int = 64, height: int = 64) -> Image.Image:
    """A mask with a white part, whose width is no multiple of eight, and a grey rim."""
    painted = np.zeros((height, width), np.uint8)
    painted[height // 3 : height - 5, width // 4 : width // 4 * 3] = 255
    painted[height // 3 : height // 3 + 2] = 100
    return Image.fromarray(painted)
