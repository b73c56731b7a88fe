"""The multistep sampler of latent consistency models (Luo et al., arXiv 2310.04378)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers.sampler import BETA_SCHEDULES, SamplingPlan, StepInput, StepOutput, StepRequest, setting
from vinograph.schedulers.vp_sampler import VPSampler

_SIGMA_DATA = 0.5  # the data's deviation, in the consistency model's boundary condition


def consistency_timesteps(request: StepRequest, original: int, train: int) -> NDArray[np.int64]:
    """The request's timesteps, or as many of those that a consistency model was distilled at.

    These are ``original`` of the ``train`` training timesteps, evenly spaced.

    Raises:
        RequestError: more steps than the model was distilled at.
    """
    if request.timesteps is not None:
        return np.array(request.timesteps).astype(np.int64)
    count = request.num_inference_steps
    if count > original:
        raise RequestError(f"{count} steps are more than this model was distilled from; give at most {original}")
    trained = (np.arange(1, original + 1) * (train // original) - 1)[::-1]
    return np.asarray(trained[np.floor(np.linspace(0, original, count, endpoint=False)).astype(np.int64)])


@dataclass(frozen=True)
class LCMSampler(VPSampler):
    """Multistep consistency sampling (Song et al., arXiv 2303.01469, algorithm 1).

    Each step predicts x₀ at once, and all but the last add noise to it for the next.
    """

    beta_start: float = setting(0.00085, least=0)
    beta_end: float = setting(0.012, least=0)
    beta_schedule: str = setting("scaled_linear", *BETA_SCHEDULES)
    original_inference_steps: int = setting(50, least=1)
    timestep_scaling: float = setting(10.0)

    scheduler_class: ClassVar[str] = "LCMScheduler"
    takes_timesteps: ClassVar[bool] = True
    distilled: ClassVar[bool] = True

    def _plan(self, request: StepRequest) -> SamplingPlan:
        timesteps = consistency_timesteps(request, self.original_inference_steps, self.num_train_timesteps)
        return SamplingPlan(timesteps.astype(np.float32), np.empty(0, np.float32), len(timesteps))

    def step(self, inputs: StepInput) -> StepOutput:
        """c_skip xₜ + c_out x₀ (arXiv 2303.01469, equation 5), then noise up to the next step."""
        timesteps, index, sample = inputs.plan.timesteps, inputs.index, inputs.sample
        scaled_timestep = timesteps[index] * np.float32(self.timestep_scaling)
        variance = np.float32(_SIGMA_DATA**2)
        c_skip = variance / (scaled_timestep**2 + variance)
        c_out = scaled_timestep / np.sqrt(scaled_timestep**2 + variance)
        alpha_cumprod = self._alpha_cumprod(int(timesteps[index]))
        denoised = c_out * self._denoised(sample, inputs.model_output, alpha_cumprod) + c_skip * sample
        if index == len(timesteps) - 1:
            return StepOutput(denoised, denoised)
        following = self._alpha_cumprod(int(timesteps[index + 1]))
        noise = inputs.draw_noise(sample.shape)
        return StepOutput(np.sqrt(following) * denoised + np.sqrt(1 - following) * noise, denoised)
