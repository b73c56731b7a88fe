"""Encodes scenes in frames other than the square one; the pictures themselves are not stored."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.loop import load, move_module, save
from training.pixart.config import FRAMES
from training.scene_dataset import images_to_tensor
from training.sdxl.latents import encode_batch
from training.sdxl.vae import load_vae
from training.world import Scene, render
from training.world.dataset import plan
from training.world.frame import Frame

_CHUNK = 500


def _render(frame: Frame, job: tuple[NDArray[np.int64], int]) -> NDArray[np.uint8]:
    row, seed = job
    return render(Scene.from_labels(tuple(int(v) for v in row)), seed, frame)


def load_frame(
    size: tuple[int, int], count: int, work: Path, device: torch.device, workers: int
) -> tuple[Tensor, Tensor]:
    """Latents [count, 4, h, w] (f16) and labels [count, 6] of scenes in a frame (width, height).

    Every frame has its own scenes, all of the training split. Latents are stored in ``work``, and
    an interrupted run resumes there.
    """
    path = work / f"latents_{size[0]}x{size[1]}.pt"
    labels, seeds = plan("train", count, seed=1 + FRAMES.index(size))
    latents = (
        load(path)["latents"] if path.exists() else torch.empty(0, 4, size[1] // 8, size[0] // 8, dtype=torch.half)
    )
    if len(latents) < count:
        model = load_vae(work)
        move_module(model, device)
        jobs = list(zip(labels, (int(seed) for seed in seeds), strict=True))
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            while len(latents) < count:
                chunk = jobs[len(latents) : len(latents) + _CHUNK]
                pictures = images_to_tensor(np.stack(pool.map(partial(_render, Frame(*size)), chunk, chunksize=25)))
                latents = torch.cat([latents, encode_batch(model, pictures, device)])
                save(path, {"latents": latents.contiguous()})
    return latents[:count], torch.from_numpy(labels)
