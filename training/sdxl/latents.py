"""Every training picture's latents, so that the autoencoder is not run in each step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.common import autocast, channels_last, load, place, save
from training.scenes import Halves, as_pictures
from training.sdxl.vae import encoded, load_vae

_CHUNK = 1000
_AT_ONCE = 16


def encode(images: NDArray[np.uint8] | Halves, path: Path, work: Path, device: torch.device) -> Tensor:
    """Latents [n, 4, h, w] (f16) of pictures [n, 8 h, 8 w, 3]; kept in ``path``, and gone on with where it ends."""
    kept = (
        load(path)["latents"]
        if path.exists()
        else torch.empty(0, 4, *(side // 8 for side in images[:1].shape[1:3]), dtype=torch.half)
    )
    model = load_vae(work)
    place(model, device)
    while len(kept) < len(images):
        pictures = as_pictures(images[len(kept) : len(kept) + _CHUNK])
        kept = torch.cat([kept, encode_pictures(model, pictures, device)])
        save(path, {"latents": kept.contiguous()})
    return kept


@torch.no_grad()
def encode_pictures(model: nn.Module, pictures: Tensor, device: torch.device) -> Tensor:
    """Latents [n, 4, h, w] (f16) of pictures [n, 3, 8 h, 8 w] in [0, 1]."""
    found = []
    for part in torch.split(pictures, _AT_ONCE):
        with autocast(device):
            found.append(encoded(model, channels_last(part.to(device))).half().cpu())
    return torch.cat(found)
