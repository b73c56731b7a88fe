"""Scenes in frames that are no squares, as latents: the pictures themselves are not kept."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.common import load, place, save
from training.pixart.config import FRAMES
from training.scenes import as_pictures
from training.sdxl.latents import encode_pictures
from training.sdxl.vae import load_vae
from training.world import Scene, render
from training.world.dataset import plan
from training.world.frame import Frame

_CHUNK = 500


def _draw(frame: Frame, job: tuple[NDArray[np.int64], int]) -> NDArray[np.uint8]:
    row, seed = job
    return render(Scene.from_labels(tuple(int(v) for v in row)), seed, frame)


def latents(size: tuple[int, int], count: int, work: Path, device: torch.device, workers: int) -> tuple[Tensor, Tensor]:
    """Latents [count, 4, h, w] (f16) of scenes in a frame of that width and height, and their labels [count, 6].

    They are of the training combinations, and others in each frame. Kept in ``work``, and gone on with where they end.
    """
    path = work / f"latents_{size[0]}x{size[1]}.pt"
    labels, seeds = plan("train", count, seed=1 + FRAMES.index(size))
    kept = load(path)["latents"] if path.exists() else torch.empty(0, 4, size[1] // 8, size[0] // 8, dtype=torch.half)
    if len(kept) < count:
        model = load_vae(work)
        place(model, device)
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            while len(kept) < count:
                jobs = list(zip(labels, (int(seed) for seed in seeds), strict=True))[len(kept) : len(kept) + _CHUNK]
                pictures = as_pictures(np.stack(pool.map(partial(_draw, Frame(*size)), jobs, chunksize=25)))
                kept = torch.cat([kept, encode_pictures(model, pictures, device)])
                save(path, {"latents": kept.contiguous()})
    return kept[:count], torch.from_numpy(labels)
