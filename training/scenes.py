"""The rendered scenes, as `python -m training.world` writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Scenes:
    """One split: pictures and labels, read from disk as they are asked for."""

    def __init__(self, folder: Path, split: str) -> None:
        self.images: NDArray[np.uint8] = np.load(folder / f"{split}_images.npy", mmap_mode="r")
        self.small: NDArray[np.uint8] = np.load(folder / f"{split}_192.npy", mmap_mode="r")
        self.labels = torch.from_numpy(np.load(folder / f"{split}_labels.npy"))

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def crops(self, count: int, side: int, rng: np.random.Generator) -> Tensor:
        """`count` crops from random pictures, [count, 3, side, side] in [0, 1]."""
        picked = rng.integers(0, len(self), count)
        corners = rng.integers(0, self.images.shape[1] - side + 1, (count, 2))
        crops = [self.images[i, y : y + side, x : x + side] for i, (y, x) in zip(picked, corners, strict=True)]
        return as_pictures(np.stack(crops))


class Halves:
    """Pictures at half their size, read as they are asked for: each pixel is the mean of four."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, span: slice) -> NDArray[np.uint8]:
        whole = self._images[span].astype(np.uint16)
        sums = whole[:, ::2, ::2] + whole[:, 1::2, ::2] + whole[:, ::2, 1::2] + whole[:, 1::2, 1::2]
        return ((sums + 2) // 4).astype(np.uint8)


def as_pictures(pixels: NDArray[np.uint8]) -> Tensor:
    """Bytes [n, height, width, 3] as [n, 3, height, width] in [0, 1], channels last in memory."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float().div(255)
