"""Noise by the schedule of `storybook-sdxl`: SDXL's betas, and velocities (Salimans and Ho, 2022, arXiv 2202.00512)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.sdxl.config import SCHEDULER

LAST = SCHEDULER["num_train_timesteps"] - 1
"""The timestep that drawing in one step starts from and ends with."""


def _signal() -> Tensor:
    start, end, count = (SCHEDULER[key] for key in ("beta_start", "beta_end", "num_train_timesteps"))
    betas = torch.linspace(start**0.5, end**0.5, count) ** 2
    return torch.cumprod(1 - betas, dim=0)


SIGNAL = _signal()
"""ᾱ: the share of the signal's variance at each timestep."""


def share(timesteps: Tensor) -> Tensor:
    """ᾱ [n, 1, 1, 1] at timesteps [n]."""
    return SIGNAL[timesteps.cpu()].to(timesteps.device)[:, None, None, None]


def noised(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet is given: at the last timestep the noise alone, as the sampler starts, else ``clean`` in noise."""
    signal = share(timesteps)
    kept = torch.where(timesteps[:, None, None, None] == LAST, 0.0, signal.sqrt())
    return kept * clean + (1 - signal).sqrt() * noise


def clean_of(sample: Tensor, velocity: Tensor, timesteps: Tensor) -> Tensor:
    """The clean latents that a predicted velocity means."""
    signal = share(timesteps)
    return signal.sqrt() * sample - (1 - signal).sqrt() * velocity
