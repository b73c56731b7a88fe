"""Trajectory consistency sampling (Zheng et al., arXiv 2402.19159)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vinograph.errors import RequestError
from vinograph.schedulers.lcm import consistency_timesteps
from vinograph.schedulers.sampler import BETA_SCHEDULES, SamplingPlan, StepInput, StepOutput, StepRequest, setting
from vinograph.schedulers.vp_sampler import VPSampler


@dataclass(frozen=True)
class TCDSampler(VPSampler):
    """Strategic stochastic sampling (algorithm 4).

    The plan's ``eta``, which the paper calls γ, is the share of fresh noise. Each step goes below
    the step's end by that share, and noise leads back up to it. With 0, sampling is deterministic.
    """

    beta_start: float = setting(0.00085, least=0)
    beta_end: float = setting(0.012, least=0)
    beta_schedule: str = setting("scaled_linear", *BETA_SCHEDULES)
    original_inference_steps: int = setting(50, least=1)
    timestep_scaling: float = setting(10.0)

    scheduler_class: ClassVar[str] = "TCDScheduler"
    takes_timesteps: ClassVar[bool] = True
    takes_eta: ClassVar[bool] = True
    distilled: ClassVar[bool] = True

    def _plan(self, request: StepRequest) -> SamplingPlan:
        timesteps = consistency_timesteps(request, self.original_inference_steps, self.num_train_timesteps)
        if request.eta > 1:
            raise RequestError(f"eta is {request.eta:g}; give a share from 0 to 1")
        return SamplingPlan(timesteps.astype(np.float32), np.empty(0, np.float32), len(timesteps), eta=request.eta)

    def step(self, inputs: StepInput) -> StepOutput:
        """√ᾱₛ x₀ + √(1 - ᾱₛ) ε, with s = (1 - γ) of the next timestep, then noise up to that.

        As in diffusers, x₀ is neither clipped nor thresholded, and the last step ends at timestep 0.
        """
        plan, index, sample = inputs.plan, inputs.index, inputs.sample
        last = index == len(plan.timesteps) - 1
        following = 0 if last else int(plan.timesteps[index + 1])
        below = int(np.floor((1 - plan.eta) * following))
        alpha, next_alpha, below_alpha = (
            self._alpha_cumprod(each) for each in (int(plan.timesteps[index]), following, below)
        )
        denoised = self.unclipped_denoised(sample, inputs.model_output, alpha)
        epsilon = self.epsilon(sample, inputs.model_output, alpha)
        next_sample = np.sqrt(below_alpha) * denoised + np.sqrt(1 - below_alpha) * epsilon
        if plan.eta > 0 and not last:
            share = next_alpha / below_alpha
            next_sample = np.sqrt(share) * next_sample + np.sqrt(1 - share) * inputs.draw_noise(sample.shape)
        return StepOutput(np.asarray(next_sample, np.float32), denoised)
