"""Encodes every training picture once, so that no training step runs the VAE's encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.loop import autocast, channels_last, load, move_module, save
from training.scene_dataset import HalfSizeImages, images_to_tensor
from training.sdxl.vae import encode, load_vae

_CHUNK = 1000
_BATCH_SIZE = 16


def encode_images(images: NDArray[np.uint8] | HalfSizeImages, path: Path, work: Path, device: torch.device) -> Tensor:
    """Latents [n, 4, h, w] (f16) of ``images`` [n, 8 h, 8 w, 3], stored in ``path``.

    ``work`` has the trained VAE.
    """
    latents = (
        load(path)["latents"]
        if path.exists()
        else torch.empty(0, 4, *(side // 8 for side in images[:1].shape[1:3]), dtype=torch.half)
    )
    model = load_vae(work)
    move_module(model, device)
    while len(latents) < len(images):
        pictures = images_to_tensor(images[len(latents) : len(latents) + _CHUNK])
        latents = torch.cat([latents, encode_batch(model, pictures, device)])
        save(path, {"latents": latents.contiguous()})
    return latents


@torch.no_grad()
def encode_batch(model: nn.Module, pictures: Tensor, device: torch.device) -> Tensor:
    """Latents [n, 4, h, w] (f16) of pictures [n, 3, 8 h, 8 w] in [0, 1]."""
    latents = []
    for batch in torch.split(pictures, _BATCH_SIZE):
        with autocast(device):
            latents.append(encode(model, channels_last(batch.to(device))).half().cpu())
    return torch.cat(latents)
