"""The data set of rendered scenes that `python -m training.world` writes, as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class SceneDataset:
    """One split: images, read from disk on access, and labels.

    ``images`` are [n, 256, 256, 3] and ``small_images``, the image encoder's, [n, 192, 192, 3];
    both are uint8. ``labels`` [n, 6] are indices of attribute values.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.images: NDArray[np.uint8] = np.load(folder / f"{split}_images.npy", mmap_mode="r")
        self.small_images: NDArray[np.uint8] = np.load(folder / f"{split}_192.npy", mmap_mode="r")
        self.labels = torch.from_numpy(np.load(folder / f"{split}_labels.npy"))

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def random_crops(self, count: int, side: int, rng: np.random.Generator) -> Tensor:
        """Crops of ``count`` random images, [count, 3, side, side] in [0, 1]."""
        picked = rng.integers(0, len(self), count)
        corners = rng.integers(0, self.images.shape[1] - side + 1, (count, 2))
        crops = [self.images[i, y : y + side, x : x + side] for i, (y, x) in zip(picked, corners, strict=True)]
        return images_to_tensor(np.stack(crops))


class HalfSizeImages:
    """Images at half their size, computed on access: each pixel is the rounded mean of four."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, span: slice) -> NDArray[np.uint8]:
        full = self._images[span].astype(np.uint16)
        sums = full[:, ::2, ::2] + full[:, 1::2, ::2] + full[:, ::2, 1::2] + full[:, 1::2, 1::2]
        return ((sums + 2) // 4).astype(np.uint8)


def images_to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """``pixels`` [n, h, w, 3] as floats [n, 3, h, w] in [0, 1], channels last in memory."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float().div(255)
