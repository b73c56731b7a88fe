"""Every training picture's latents, so that the autoencoder is not run in each step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.common import autocast, channels_last, load, place, save
from training.scenes import as_pictures
from training.sdxl.config import GRID
from training.sdxl.vae import encoded, load_vae

_CHUNK = 1000
_AT_ONCE = 16


@torch.no_grad()
def encode(images: NDArray[np.uint8], path: Path, work: Path, device: torch.device) -> Tensor:
    """Latents [n, 4, 32, 32] (f16) of pictures [n, 256, 256, 3]; kept in ``path``, and gone on with where it ends."""
    kept = load(path)["latents"] if path.exists() else torch.empty(0, 4, GRID, GRID, dtype=torch.half)
    model = load_vae(work)
    place(model, device)
    while len(kept) < len(images):
        chunk = []
        for start in range(len(kept), min(len(kept) + _CHUNK, len(images)), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(kept) + _CHUNK, len(images))
            with autocast(device):
                chunk.append(encoded(model, channels_last(as_pictures(images[start:stop]).to(device))).half().cpu())
        kept = torch.cat([kept, *chunk])
        save(path, {"latents": kept.contiguous()})
    return kept
