"""Euler's method over σ, with and without fresh noise (Karras et al., arXiv 2206.00364)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import noise_schedule
from vinograph.schedulers.sampler import (
    Array,
    SamplingPlan,
    StepInput,
    StepOutput,
    StepRequest,
    setting,
)
from vinograph.schedulers.sigma_spacing import SPACINGS_OF_SIGMAS, SigmaSampler


@dataclass(frozen=True)
class VESampler(SigmaSampler):
    """A variance-exploding sampler: its sample is x₀ + σ ε, and it counts its steps in σ."""

    # Under Karras' spacing, some classes of diffusers give the model whole timesteps.
    rounds_karras: ClassVar[bool] = False

    @cached_property
    def training_sigmas(self) -> Array:
        """σ of each training timestep, [num_train_timesteps]."""
        alphas_cumprod = self.alphas_cumprod
        if self.rescale_betas_zero_snr:
            alphas_cumprod = noise_schedule.clamp_final_alpha(alphas_cumprod)
        return noise_schedule.sigmas_from_alphas_cumprod(alphas_cumprod)

    def _spaced(self, request: StepRequest) -> tuple[NDArray[Any], NDArray[Any]]:
        """Timesteps [n] and σ [n] of the steps, by the timesteps' or by the sigmas' spacing."""
        self._check_custom(request.timesteps)
        count, train = request.num_inference_steps, self.num_train_timesteps
        if request.timesteps is not None:
            timesteps: NDArray[Any] = np.array(request.timesteps, np.float32)
        else:
            spaced = noise_schedule.spaced_timesteps(self.timestep_spacing, train, count, self.steps_offset)
            timesteps = spaced.astype(np.float32)
        sigmas = self._sigmas_at(timesteps, count)
        if not self.spaces_sigmas:
            return timesteps, sigmas
        sigmas = self.spaced_sigmas(*self._ends(sigmas), count, self.training_sigmas)
        timesteps = noise_schedule.sigma_to_t(sigmas, np.log(self.training_sigmas))
        return (timesteps.round() if self.rounds_karras and self.use_karras_sigmas else timesteps), sigmas

    def _sigmas_at(self, timesteps: NDArray[Any], count: int) -> NDArray[Any]:
        """σ at the ``timesteps`` of ``count`` steps."""
        del count
        return np.asarray(np.interp(timesteps, np.arange(self.num_train_timesteps), self.training_sigmas))

    def _ends(self, sigmas: NDArray[Any]) -> tuple[float, float]:
        """The highest and the lowest σ that the sigmas' spacing goes through."""
        return float(sigmas[0]), float(sigmas[-1])

    def _sampling_plan(self, timesteps: NDArray[Any], sigmas: NDArray[Any], count: int) -> SamplingPlan:
        sigmas = sigmas.astype(np.float32)
        init_noise_sigma = sigmas.max()
        # diffusers starts these from the variance of signal and noise.
        if self.timestep_spacing == "leading":
            init_noise_sigma = np.sqrt(init_noise_sigma**2 + 1)
        return SamplingPlan(timesteps.astype(np.float32), sigmas, count, float(init_noise_sigma))

    def scale_model_input(self, plan: SamplingPlan, index: int, sample: Array) -> Array:
        """The sample at a deviation of one: x / √(σ² + 1)."""
        return np.asarray(sample / np.sqrt(plan.sigmas[index] ** 2 + 1), np.float32)

    def add_noise(self, plan: SamplingPlan, index: int, original: Array, noise: Array) -> Array:
        """``original`` + σ ``noise``."""
        return np.asarray(original + noise * plan.sigmas[index], np.float32)

    def _denoised(self, sample: Array, model_output: Array, sigma: np.float32) -> Array:
        """x₀ as the model predicts it."""
        if self.prediction_type == "epsilon":
            return sample - sigma * model_output
        if self.prediction_type == "v_prediction":
            c_out = -sigma / np.sqrt(sigma**2 + 1)
            return np.asarray(model_output * c_out + sample / (sigma**2 + 1), np.float32)
        return model_output


@dataclass(frozen=True)
class EulerAncestralSampler(VESampler):
    """k-diffusion's Euler ancestral: a step below the step's end, and fresh noise up to it."""

    prediction_type: str = setting("epsilon", "epsilon", "v_prediction")

    scheduler_class: ClassVar[str] = "EulerAncestralDiscreteScheduler"
    # diffusers spaces these steps by timesteps alone; k-diffusion's function takes any σ.
    own_settings: ClassVar[tuple[str, ...]] = SPACINGS_OF_SIGMAS

    def _plan(self, request: StepRequest) -> SamplingPlan:
        timesteps, sigmas = self._spaced(request)
        plan = self._sampling_plan(timesteps, np.append(sigmas, 0.0), request.num_inference_steps)
        return replace(plan, init_noise_sigma=float(plan.sigmas[0])) if self.spaces_sigmas else plan

    def _ends(self, sigmas: NDArray[Any]) -> tuple[float, float]:
        """All of the training's σ, as in k-diffusion, whatever the timesteps' spacing is."""
        del sigmas
        return float(self.training_sigmas[-1]), float(self.training_sigmas[0])

    def step(self, inputs: StepInput) -> StepOutput:
        """One step; like diffusers, it draws noise even where none is added."""
        sample, sigma = inputs.sample, inputs.plan.sigmas[inputs.index]
        next_sigma = inputs.plan.sigmas[inputs.index + 1]
        denoised = self._denoised(sample, inputs.model_output, sigma)
        sigma_up = np.sqrt(next_sigma**2 * (sigma**2 - next_sigma**2) / sigma**2)
        # √(next_sigma² - sigma_up²), whose difference is all rounding at high σ.
        sigma_down = next_sigma**2 / sigma
        derivative = (sample - denoised) / sigma
        next_sample = sample + derivative * (sigma_down - sigma)
        return StepOutput(next_sample + inputs.draw_noise(next_sample.shape) * sigma_up, denoised)


@dataclass(frozen=True)
class EulerSampler(VESampler):
    """Euler's method without fresh noise (algorithm 1 of the paper, without its correction)."""

    interpolation_type: str = setting("linear", "linear", "log_linear")
    sigma_min: float | None = setting(None, kind=float, least=1e-6)
    sigma_max: float | None = setting(None, kind=float, least=1e-6)
    timestep_type: str = setting("discrete", "discrete", "continuous")
    final_sigmas_type: str = setting("zero", "zero", "sigma_min")

    scheduler_class: ClassVar[str] = "EulerDiscreteScheduler"
    takes_timesteps: ClassVar[bool] = True
    takes_sigmas: ClassVar[bool] = True

    @property
    def _continuous(self) -> bool:
        """Whether the model takes log(σ) / 4 in place of a timestep."""
        return self.timestep_type == "continuous" and self.prediction_type == "v_prediction"

    def _plan(self, request: StepRequest) -> SamplingPlan:
        if request.timesteps is not None and self._continuous:
            raise RequestError("this model's scheduler spaces its own sigmas and takes no timesteps; give sigmas")
        if request.sigmas is not None:
            sigmas: NDArray[Any] = np.array(request.sigmas, np.float32)
            timesteps: NDArray[Any] = noise_schedule.sigma_to_t(sigmas[:-1], np.log(self.training_sigmas))
        else:
            timesteps, sigmas = self._spaced(request)
            lowest = noise_schedule.sigmas_from_alphas_cumprod(self.alphas_cumprod[:1])[0]
            sigmas = np.append(sigmas, lowest if self.final_sigmas_type == "sigma_min" else 0.0)
        plan = self._sampling_plan(timesteps, sigmas, request.num_inference_steps)
        if not self._continuous:
            return plan
        with np.errstate(divide="ignore"):  # a custom σ of 0 has the logarithm -∞
            return replace(plan, timesteps=np.float32(0.25) * np.log(plan.sigmas[:-1]))

    def _sigmas_at(self, timesteps: NDArray[Any], count: int) -> NDArray[Any]:
        """σ at the timesteps; with "log_linear", evenly spaced in log σ whatever the timesteps are."""
        if self.interpolation_type == "linear":
            return super()._sigmas_at(timesteps, count)
        log_sigmas = np.log(self.training_sigmas)
        return np.exp(noise_schedule.linspace(log_sigmas[-1], log_sigmas[0], count + 1))

    def _ends(self, sigmas: NDArray[Any]) -> tuple[float, float]:
        """As other samplers', where ``sigma_max`` and ``sigma_min`` are not set."""
        highest, lowest = super()._ends(sigmas)
        return (
            highest if self.sigma_max is None else self.sigma_max,
            lowest if self.sigma_min is None else self.sigma_min,
        )

    def step(self, inputs: StepInput) -> StepOutput:
        """x + (σ' - σ) dx/dσ, where dx/dσ = (x - x₀) / σ (equations 1 and 3 with σ(t) = t)."""
        sample, sigma = inputs.sample, inputs.plan.sigmas[inputs.index]
        next_sigma = inputs.plan.sigmas[inputs.index + 1]
        denoised = self._denoised(sample, inputs.model_output, sigma)
        derivative = (sample - denoised) / sigma
        return StepOutput(sample + derivative * (next_sigma - sigma), denoised)
