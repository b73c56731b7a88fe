"""Noise by a schedule of betas, and the velocities that a network predicts (Salimans and Ho, arXiv 2202.00512)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Schedule:
    """How much of a sample is signal at each timestep, by a scheduler's configuration."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        start, end, count = (settings[key] for key in ("beta_start", "beta_end", "num_train_timesteps"))
        if settings["beta_schedule"] == "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.double) ** 2
        else:
            betas = torch.linspace(start, end, count, dtype=torch.double)
        self.signal = torch.cumprod(1 - betas, dim=0).float()
        """ᾱ by timestep."""

    @property
    def last(self) -> int:
        """The timestep of most noise."""
        return len(self.signal) - 1

    def share(self, timesteps: Tensor) -> Tensor:
        """ᾱ [n, 1, 1, 1] at timesteps [n]."""
        return self.signal[timesteps.cpu()].to(timesteps.device)[:, None, None, None]

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``clean`` [n, c, h, w] in noise."""
        signal = self.share(timesteps)
        return signal.sqrt() * clean + (1 - signal).sqrt() * noise

    def clean_of(self, sample: Tensor, velocity: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latents that a predicted velocity means."""
        signal = self.share(timesteps)
        return signal.sqrt() * sample - (1 - signal).sqrt() * velocity

    def noise_of(self, sample: Tensor, velocity: Tensor, timesteps: Tensor) -> Tensor:
        """The noise that a predicted velocity means."""
        signal = self.share(timesteps)
        return signal.sqrt() * velocity + (1 - signal).sqrt() * sample
