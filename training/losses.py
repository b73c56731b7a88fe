"""What the recipes have in common in judging pictures: their error, and what a reader finds in them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.world import ATTRIBUTES

CLASSES = [len(values) for values in ATTRIBUTES.values()]
"""How many values each attribute has."""


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours, across and down."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def picture_loss(drawn: Tensor, picture: Tensor) -> Tensor:
    """Absolute, squared and edge error: flat fields even, outlines crisp."""
    error = drawn.float() - picture
    across, down = edges(error)
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * (across.abs().mean() + down.abs().mean())


def psnr(drawn: Tensor, picture: Tensor) -> float:
    """Mean over pictures, in decibels."""
    error = (drawn.clamp(0, 1) - picture).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


def attribute_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [n, attributes]."""
    parts = torch.split(logits.float(), CLASSES, dim=1)
    losses = [F.cross_entropy(part, labels[:, i], reduction="none") for i, part in enumerate(parts)]
    return torch.stack(losses, dim=1)


def attribute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [n], summed over the attributes."""
    return attribute_losses(logits, labels).sum(dim=1)


def attributes_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Which attributes are right, [n, attributes]."""
    parts = torch.split(logits, CLASSES, dim=1)
    return torch.stack([part.argmax(dim=1) for part in parts], dim=1) == labels


def subject_weight(picture: Tensor, window: int) -> Tensor:
    """[n, 1, h, w], of mean 1: high where there is detail, which is where the subject is."""
    detail = (picture - F.avg_pool2d(picture, window, 1, window // 2)).abs().mean(dim=1, keepdim=True)
    detail = F.avg_pool2d(detail, 5, 1, 2)
    return 0.4 + 0.6 * detail / detail.mean(dim=(1, 2, 3), keepdim=True)
