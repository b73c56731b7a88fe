"""DDIM: denoising diffusion implicit models (Song et al., arXiv 2010.02502)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vinograph.schedulers.sampler import SamplingPlan, StepInput, StepOutput, StepRequest, setting
from vinograph.schedulers.vp_sampler import VPSampler


@dataclass(frozen=True)
class DDIMSampler(VPSampler):
    """Implicit sampling.

    The plan's ``eta`` is the share of fresh noise (equation 16): 0 is DDIM, 1 is DDPM.
    """

    clip_sample: bool = setting(True)

    scheduler_class: ClassVar[str] = "DDIMScheduler"
    takes_eta: ClassVar[bool] = True

    def _plan(self, request: StepRequest) -> SamplingPlan:
        timesteps = self._whole_timesteps(request).astype(np.float32)
        return SamplingPlan(timesteps, np.empty(0, np.float32), request.num_inference_steps, eta=request.eta)

    def step(self, inputs: StepInput) -> StepOutput:
        """Equation 12: √ᾱ' x₀, the direction to xₜ, and fresh noise; ᾱ' is that of the step's end.

        As in diffusers, the direction is computed from the model's own ε, also where x₀ was
        clipped.
        """
        plan, sample = inputs.plan, inputs.sample
        timestep = int(plan.timesteps[inputs.index])
        previous_timestep = timestep - self.num_train_timesteps // plan.num_inference_steps
        alpha, previous_alpha = self._alpha_cumprod(timestep), self._alpha_cumprod(previous_timestep)
        denoised = self._denoised(sample, inputs.model_output, alpha)
        epsilon = self.epsilon(sample, inputs.model_output, alpha)
        sigma = np.float32(plan.eta) * np.sqrt((1 - previous_alpha) / (1 - alpha) * (1 - alpha / previous_alpha))
        direction = np.sqrt(1 - previous_alpha - sigma**2) * epsilon
        previous_sample = np.sqrt(previous_alpha) * denoised + direction
        if plan.eta > 0:
            previous_sample = previous_sample + sigma * inputs.draw_noise(sample.shape)
        return StepOutput(np.asarray(previous_sample, np.float32), denoised)
