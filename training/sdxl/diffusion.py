"""Noise by the schedule of `storybook-sdxl`: SDXL's betas."""

from __future__ import annotations

import torch
from torch import Tensor

from training.schedule import Schedule
from training.sdxl.config import SCHEDULER


class OneStepSchedule(Schedule):
    """A schedule whose last timestep is noise alone, as the sampler starts."""

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``clean`` [n, c, h, w] in noise."""
        last = timesteps[:, None, None, None] == self.last
        return super().noised(torch.where(last, 0.0, clean), noise, timesteps)


SCHEDULE = OneStepSchedule(SCHEDULER)
LAST = SCHEDULE.last
"""The timestep that drawing in one step starts from and ends with."""
