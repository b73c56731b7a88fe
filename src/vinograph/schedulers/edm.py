"""Samplers of models with the preconditioning of EDM (Karras et al., arXiv 2206.00364, table 1).

They are trained over σ itself, without a schedule of β: the model takes log(σ) / 4 as its timestep,
and a sample that is scaled to a deviation of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.schedulers import noise_schedule
from vinograph.schedulers.dpmsolver import FEW_STEPS
from vinograph.schedulers.sampler import Array, Sampler, SamplingPlan, StepInput, StepOutput, StepRequest, setting

_OF_BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas")


@dataclass(frozen=True)
class EDMSampler(Sampler):
    """What these samplers share: σ of the steps, and the model's preconditioning."""

    prediction_type: str = setting("epsilon", "epsilon", "v_prediction")
    sigma_min: float = setting(0.002, least=1e-6)
    sigma_max: float = setting(80.0, least=1e-6)
    sigma_data: float = setting(0.5, least=1e-6)
    sigma_schedule: str = setting("karras", "karras", "exponential")
    rho: float = setting(7.0, least=1, most=100)
    final_sigmas_type: str = setting("zero", "zero", "sigma_min")

    own_settings: ClassVar[tuple[str, ...]] = (
        *_OF_BETAS,
        "timestep_spacing",
        "steps_offset",
        "rescale_betas_zero_snr",
    )
    preconditioned: ClassVar[bool] = True

    def _plan(self, request: StepRequest) -> SamplingPlan:
        count = request.num_inference_steps
        low, high = self.sigma_min, self.sigma_max
        if self.sigma_schedule == "karras":
            first, last_root = high ** (1 / self.rho), low ** (1 / self.rho)
            sigmas = (first + np.linspace(0, 1, count) * (last_root - first)) ** self.rho
        else:
            sigmas = noise_schedule.exponential_sigmas(high, low, count)
        last = low if self.final_sigmas_type == "sigma_min" else 0.0
        levels = np.append(sigmas, last).astype(np.float32)
        timesteps = np.float32(0.25) * np.log(levels[:-1])
        return SamplingPlan(timesteps, levels, count, (high**2 + 1) ** 0.5)

    def scale_model_input(self, plan: SamplingPlan, index: int, sample: Array) -> Array:
        """The sample at a deviation of one: x / √(σ² + σ_data²)."""
        return np.asarray(sample / np.sqrt(plan.sigmas[index] ** 2 + np.float32(self.sigma_data**2)), np.float32)

    def add_noise(self, plan: SamplingPlan, index: int, original: Array, noise: Array) -> Array:
        """``original`` + σ ``noise``."""
        return np.asarray(original + noise * plan.sigmas[index], np.float32)

    def _denoised(self, sample: Array, model_output: Array, sigma: np.float32) -> Array:
        """x₀ as the model predicts it: c_skip x + c_out F."""
        data = np.float32(self.sigma_data)
        variance = sigma**2 + data**2
        c_out = sigma * data / np.sqrt(variance)
        signed = c_out if self.prediction_type == "epsilon" else -c_out
        return np.asarray(data**2 / variance * sample + signed * model_output, np.float32)


@dataclass(frozen=True)
class EDMEulerSampler(EDMSampler):
    """Euler's method without fresh noise."""

    scheduler_class: ClassVar[str] = "EDMEulerScheduler"

    def step(self, inputs: StepInput) -> StepOutput:
        """x + (σ' - σ) dx/dσ, where dx/dσ = (x - x₀) / σ."""
        sigma, end = inputs.plan.sigmas[inputs.index : inputs.index + 2]
        denoised = self._denoised(inputs.sample, inputs.model_output, sigma)
        derivative = (inputs.sample - denoised) / sigma
        return StepOutput(inputs.sample + derivative * (end - sigma), denoised)


@dataclass(frozen=True)
class EDMDPMSolverMultistepSampler(EDMSampler):
    """DPM-Solver++ 2M (Lu et al., arXiv 2211.01095) for a signal of full size, where λ = -log σ."""

    solver_order: int = setting(2, 1, 2)
    algorithm_type: str = setting("dpmsolver++", "dpmsolver++")
    solver_type: str = setting("midpoint", "midpoint", "heun")
    lower_order_final: bool = setting(True)
    euler_at_final: bool = setting(False)

    scheduler_class: ClassVar[str] = "EDMDPMSolverMultistepScheduler"
    # Latents have no range that thresholding could keep to.
    fixed_settings: ClassVar[Mapping[str, Any]] = {"thresholding": False}
    aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "solver_type": {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
        "algorithm_type": {"deis": "dpmsolver++"},
    }

    def step(self, inputs: StepInput) -> StepOutput:
        """One step, of second order where the step before is known."""
        sigma, end = inputs.plan.sigmas[inputs.index : inputs.index + 2]
        denoised = self._denoised(inputs.sample, inputs.model_output, sigma)
        decay = end / sigma - 1  # e⁻ʰ - 1
        update: NDArray[Any] = end / sigma * inputs.sample - decay * denoised
        if self.solver_order == 2 and inputs.state is not None and not self._ends_in_first_order(inputs):
            h = np.log(sigma) - np.log(end)
            before = np.log(inputs.plan.sigmas[inputs.index - 1]) - np.log(sigma)
            slope = (denoised - inputs.state) * (h / before)
            factor = -np.float32(0.5) * decay if self.solver_type == "midpoint" else decay / h + 1
            update = update + factor * slope
        return StepOutput(np.asarray(update, np.float32), denoised, denoised)

    def _ends_in_first_order(self, inputs: StepInput) -> bool:
        """Whether this is the last step, and one of first order."""
        count = len(inputs.plan.timesteps)
        few = self.lower_order_final and count < FEW_STEPS
        return inputs.index == count - 1 and (self.euler_at_final or few or self.final_sigmas_type == "zero")
