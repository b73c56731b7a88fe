"""Losses and metrics that the recipes share: errors of images, and of classified attributes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.world import ATTRIBUTES

CLASSES = [len(values) for values in ATTRIBUTES.values()]
"""Number of values of each attribute, in the order of a label vector."""


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of ``x`` [..., h, w] between horizontal and between vertical neighbours."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def image_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """L1, L2 and edge error of images; the edges' part keeps outlines crisp."""
    error = predicted.float() - target
    across, down = edges(error)
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * (across.abs().mean() + down.abs().mean())


def psnr(predicted: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, the mean over images [n, 3, h, w] in [0, 1]."""
    error = (predicted.clamp(0, 1) - target).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


def attribute_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [n, attributes] of ``logits`` [n, sum of CLASSES] by ``labels``."""
    parts = torch.split(logits.float(), CLASSES, dim=1)
    losses = [F.cross_entropy(part, labels[:, i], reduction="none") for i, part in enumerate(parts)]
    return torch.stack(losses, dim=1)


def attribute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [n] as :func:`attribute_losses`, summed over the attributes."""
    return attribute_losses(logits, labels).sum(dim=1)


def correct_attributes(logits: Tensor, labels: Tensor) -> Tensor:
    """Which attributes are classified correctly, a mask [n, attributes]."""
    parts = torch.split(logits, CLASSES, dim=1)
    return torch.stack([part.argmax(dim=1) for part in parts], dim=1) == labels


def detail_weight(x: Tensor, window: int) -> Tensor:
    """Loss weights [n, 1, h, w] of mean 1 for images or latents ``x``, higher at details.

    Detail is the distance from the local mean over ``window`` pixels: mostly the subject, which is
    few pixels.
    """
    detail = (x - F.avg_pool2d(x, window, 1, window // 2)).abs().mean(dim=1, keepdim=True)
    detail = F.avg_pool2d(detail, 5, 1, 2)
    return 0.4 + 0.6 * detail / detail.mean(dim=(1, 2, 3), keepdim=True)
