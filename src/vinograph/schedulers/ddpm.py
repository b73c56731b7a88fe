"""DDPM: denoising diffusion probabilistic models (Ho et al., arXiv 2006.11239)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vinograph.schedulers.sampler import SamplingPlan, StepInput, StepOutput, StepRequest, setting
from vinograph.schedulers.vp_sampler import VPSampler

_LEAST_VARIANCE = np.float32(1e-20)  # diffusers', so that the last step has its tiny noise, too


@dataclass(frozen=True)
class DDPMSampler(VPSampler):
    """Ancestral sampling: a draw from the posterior of the step's end (section 2 of the paper).

    Noise of the variance β̃ ("fixed_small") or β ("fixed_large") is drawn. "fixed_small_log" is
    computed by way of the logarithm and means the same as "fixed_small".

    A learned variance is refused: diffusers' pipelines of these families drop the channels that
    hold it. So is "fixed_large_log", of which diffusers takes the root of a negative number.
    """

    clip_sample: bool = setting(True)
    variance_type: str = setting("fixed_small", "fixed_small", "fixed_small_log", "fixed_large")

    scheduler_class: ClassVar[str] = "DDPMScheduler"
    own_settings: ClassVar[tuple[str, ...]] = ("set_alpha_to_one",)
    takes_timesteps: ClassVar[bool] = True

    def _plan(self, request: StepRequest) -> SamplingPlan:
        timesteps = self._whole_timesteps(request)
        return SamplingPlan(timesteps.astype(np.float32), np.empty(0, np.float32), len(timesteps))

    def step(self, inputs: StepInput) -> StepOutput:
        """The posterior's mean (equation 7) and, above timestep 0, noise of its variance."""
        timesteps, index, sample = inputs.plan.timesteps, inputs.index, inputs.sample
        timestep = int(timesteps[index])
        following = int(timesteps[index + 1]) if index + 1 < len(timesteps) else -1
        alpha_cumprod, next_alpha_cumprod = self._alpha_cumprod(timestep), self._alpha_cumprod(following)
        alpha = alpha_cumprod / next_alpha_cumprod
        beta = 1 - alpha
        denoised = self._denoised(sample, inputs.model_output, alpha_cumprod)
        from_denoised = np.sqrt(next_alpha_cumprod) * beta / (1 - alpha_cumprod)
        from_sample = np.sqrt(alpha) * (1 - next_alpha_cumprod) / (1 - alpha_cumprod)
        mean = np.asarray(from_denoised * denoised + from_sample * sample, np.float32)
        if timestep == 0:
            return StepOutput(mean, denoised)
        small = (1 - next_alpha_cumprod) / (1 - alpha_cumprod) * beta
        variance = beta if self.variance_type == "fixed_large" else np.maximum(small, _LEAST_VARIANCE)
        noise = np.sqrt(variance) * inputs.draw_noise(sample.shape)
        return StepOutput(np.asarray(mean + noise, np.float32), denoised)
