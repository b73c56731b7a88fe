"""A noise schedule of betas for networks that predict velocities (arXiv 2202.00512).

A noised sample is √ᾱ x + √(1 − ᾱ) ε with latents x and noise ε; its velocity is v = √ᾱ ε − √(1 − ᾱ)
x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class NoiseSchedule:
    """The noise schedule of a scheduler's configuration, with diffusers' keys and names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        start, end, count = (config[key] for key in ("beta_start", "beta_end", "num_train_timesteps"))
        if config["beta_schedule"] == "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.double) ** 2
        else:
            betas = torch.linspace(start, end, count, dtype=torch.double)
        self.alphas_cumprod = torch.cumprod(1 - betas, dim=0).float()
        """ᾱ by timestep, [num_train_timesteps]."""

    @property
    def last_timestep(self) -> int:
        """The timestep with the most noise."""
        return len(self.alphas_cumprod) - 1

    def alpha_cumprod(self, timesteps: Tensor) -> Tensor:
        """ᾱ [n, 1, 1, 1] at ``timesteps`` [n]."""
        return self.alphas_cumprod[timesteps.cpu()].to(timesteps.device)[:, None, None, None]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``latents`` [n, c, h, w] with ``noise`` added to the level of ``timesteps`` [n]."""
        alpha_cumprod = self.alpha_cumprod(timesteps)
        return alpha_cumprod.sqrt() * latents + (1 - alpha_cumprod).sqrt() * noise

    def velocity(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The velocity of ``latents`` with ``noise`` at ``timesteps``, the network's target."""
        alpha_cumprod = self.alpha_cumprod(timesteps)
        return alpha_cumprod.sqrt() * noise - (1 - alpha_cumprod).sqrt() * latents

    def denoised_from_velocity(self, sample: Tensor, velocity: Tensor, timesteps: Tensor) -> Tensor:
        """The denoised latents that a predicted ``velocity`` of ``sample`` implies."""
        alpha_cumprod = self.alpha_cumprod(timesteps)
        return alpha_cumprod.sqrt() * sample - (1 - alpha_cumprod).sqrt() * velocity
