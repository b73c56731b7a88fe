"""The noise schedule of `storybook-sdxl`: SDXL's betas, with no signal at the last timestep."""

from __future__ import annotations

import torch
from torch import Tensor

from training.noise_schedule import NoiseSchedule
from training.sdxl.config import SCHEDULER


class OneStepNoiseSchedule(NoiseSchedule):
    """A noise schedule whose last timestep is pure noise, which is what the sampler starts from."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``latents`` [n, c, h, w] with ``noise`` at ``timesteps`` [n]; the last is noise alone."""
        last = timesteps[:, None, None, None] == self.last_timestep
        return super().add_noise(torch.where(last, 0.0, latents), noise, timesteps)


NOISE_SCHEDULE = OneStepNoiseSchedule(SCHEDULER)
LAST_TIMESTEP = NOISE_SCHEDULE.last_timestep
"""The only timestep of one-step inference."""
