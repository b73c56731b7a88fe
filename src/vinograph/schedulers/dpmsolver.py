"""DPM-Solver++ (Lu et al., arXiv 2211.01095): the multistep solvers of first and second order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import noise_schedule
from vinograph.schedulers.sampler import (
    Array,
    Sampler,
    SamplingPlan,
    StepInput,
    StepOutput,
    StepRequest,
    setting,
)
from vinograph.schedulers.vp_sampler import dynamic_threshold

_FEW_STEPS = 15  # with fewer, lower_order_final makes the last one of first order, which is stabler


@dataclass(frozen=True)
class _NoiseLevel:
    """A point of the process αₜ x₀ + σₜ ε, with λₜ = log αₜ - log σₜ."""

    alpha: np.float32
    sigma: np.float32
    lambda_t: np.float32

    @classmethod
    def at(cls, sigma: np.float32) -> _NoiseLevel:
        """The point at which the noise has the deviation ``sigma`` for a signal of full size."""
        alpha = 1 / np.sqrt(sigma**2 + 1)
        noise = sigma * alpha
        with np.errstate(divide="ignore"):  # no noise is left at the end, so λ is infinite
            return cls(alpha, noise, np.log(alpha) - np.log(noise))


@dataclass(frozen=True)
class DPMSolverMultistepSampler(Sampler):
    """DPM-Solver++ and its stochastic variant. ``lambda_min_clipped`` None means no clipping."""

    solver_order: int = setting(2, 1, 2)
    thresholding: bool = setting(False)
    dynamic_thresholding_ratio: float = setting(0.995, least=0, most=1)
    sample_max_value: float = setting(1.0, least=1e-6)
    algorithm_type: str = setting("dpmsolver++", "dpmsolver++", "sde-dpmsolver++")
    solver_type: str = setting("midpoint", "midpoint", "heun")
    lower_order_final: bool = setting(True)
    euler_at_final: bool = setting(False)
    use_karras_sigmas: bool = setting(False)
    use_exponential_sigmas: bool = setting(False)
    use_lu_lambdas: bool = setting(False)
    final_sigmas_type: str = setting("zero", "zero", "sigma_min")
    lambda_min_clipped: float | None = setting(None, kind=float)

    scheduler_class: ClassVar[str] = "DPMSolverMultistepScheduler"
    fixed_settings: ClassVar[Mapping[str, Any]] = {
        "use_beta_sigmas": False,
        "use_flow_sigmas": False,
        "use_dynamic_shifting": False,
        "variance_type": None,
    }
    takes_timesteps: ClassVar[bool] = True

    def _plan(self, request: StepRequest) -> SamplingPlan:
        alphas_cumprod, count = self.alphas_cumprod, request.num_inference_steps
        if self.rescale_betas_zero_snr:
            alphas_cumprod = noise_schedule.clamp_final_alpha(alphas_cumprod)
        training_sigmas = noise_schedule.sigmas_from_alphas_cumprod(alphas_cumprod)
        spaces_sigmas = self.use_karras_sigmas or self.use_exponential_sigmas or self.use_lu_lambdas
        if request.timesteps is not None and spaces_sigmas:
            raise RequestError("this model's scheduler spaces its own sigmas and takes no timesteps")
        if spaces_sigmas:
            timesteps, sigmas = self._spaced_sigmas(count, training_sigmas)
        else:
            timesteps = self._spaced_timesteps(request, training_sigmas)
            sigmas = np.interp(timesteps, np.arange(len(training_sigmas)), training_sigmas)
        lowest = noise_schedule.sigmas_from_alphas_cumprod(self.alphas_cumprod[:1])[0]
        sigmas = np.append(sigmas, lowest if self.final_sigmas_type == "sigma_min" else 0.0).astype(np.float32)
        if not noise_schedule.is_decreasing(sigmas[:-1]):
            raise RequestError(f"{count} steps are too many for this model's scheduler; give fewer")
        return SamplingPlan(timesteps.astype(np.int64).astype(np.float32), sigmas, len(timesteps))

    def _spaced_sigmas(self, count: int, training_sigmas: Array) -> tuple[NDArray[Any], NDArray[Any]]:
        """Timesteps [count] and σ [count], evenly spaced in what the settings name."""
        sigma_min, sigma_max = float(training_sigmas[0]), float(training_sigmas[-1])
        log_sigmas = np.log(training_sigmas)
        if self.use_karras_sigmas:
            sigmas = noise_schedule.karras_sigmas(sigma_max, sigma_min, count)
        elif self.use_lu_lambdas:  # evenly spaced in λ
            low, high = float(log_sigmas[0]), float(log_sigmas[-1])
            sigmas = np.exp(high + np.linspace(0, 1, count) * (low - high))
        else:
            sigmas = noise_schedule.exponential_sigmas(sigma_max, sigma_min, count)
        timesteps = noise_schedule.sigma_to_t(sigmas, log_sigmas)
        # diffusers rounds in these cases, and cuts off the fraction in the others.
        rounds = not self.use_exponential_sigmas and self.beta_schedule != "squaredcos_cap_v2"
        return (timesteps.round() if rounds else timesteps), sigmas

    def _spaced_timesteps(self, request: StepRequest, training_sigmas: Array) -> NDArray[np.int64]:
        """Timesteps [n], falling. All spacings but "trailing" leave the last one, at 0, out."""
        if request.timesteps is not None:
            return np.array(request.timesteps).astype(np.int64)
        lambda_min = -np.inf if self.lambda_min_clipped is None else self.lambda_min_clipped
        count, train = request.num_inference_steps, self.num_train_timesteps
        # λ is -log σ, as the signal has its full size.
        last = train - int(np.searchsorted(-np.log(training_sigmas)[::-1], lambda_min))
        if self.timestep_spacing == "linspace":
            timesteps: NDArray[Any] = np.linspace(0, last - 1, count + 1).round()[::-1][:-1]
        elif self.timestep_spacing == "leading":
            timesteps = (np.arange(count + 1) * (last // (count + 1)))[::-1][:-1] + self.steps_offset
        else:
            timesteps = np.arange(last, 0, -train / count).round() - 1
        return timesteps.astype(np.int64)

    def add_noise(self, plan: SamplingPlan, index: int, original: Array, noise: Array) -> Array:
        """αₜ ``original`` + σₜ ``noise``."""
        level = _NoiseLevel.at(plan.sigmas[index])
        return np.asarray(level.alpha * original + level.sigma * noise, np.float32)

    def step(self, inputs: StepInput) -> StepOutput:
        """One step, of second order where the step before is known (algorithm 2, "2M")."""
        plan, index, sample = inputs.plan, inputs.index, inputs.sample
        start, end = _NoiseLevel.at(plan.sigmas[index]), _NoiseLevel.at(plan.sigmas[index + 1])
        h = end.lambda_t - start.lambda_t
        d0, d1 = self._denoised(sample, inputs.model_output, start), None
        if self.solver_order == 2 and inputs.previous_denoised is not None and not self._ends_in_first_order(inputs):
            r0 = (start.lambda_t - _NoiseLevel.at(plan.sigmas[index - 1]).lambda_t) / h
            d1 = 1 / r0 * (d0 - inputs.previous_denoised)
        if self.algorithm_type == "sde-dpmsolver++":
            noise = inputs.draw_noise(sample.shape)
            next_sample = self._sde_update(sample, start, end, d0, d1)
            next_sample = next_sample + end.sigma * np.sqrt(1 - np.exp(-2 * h)) * noise
        else:
            next_sample = self._ode_update(sample, start, end, d0, d1)
        return StepOutput(np.asarray(next_sample, np.float32), d0)

    def _ode_update(
        self, sample: Array, start: _NoiseLevel, end: _NoiseLevel, d0: Array, d1: Array | None
    ) -> NDArray[Any]:
        """σₜ/σₛ x - αₜ (e⁻ʰ - 1) D₀, plus the second-order term in D₁ (algorithm 2)."""
        h = end.lambda_t - start.lambda_t
        phi = end.alpha * (np.exp(-h) - 1)
        update: NDArray[Any] = end.sigma / start.sigma * sample - phi * d0
        if d1 is not None and self.solver_type == "midpoint":
            update = update - np.float32(0.5) * phi * d1
        elif d1 is not None:
            update = update + np.float32(end.alpha * ((np.exp(-h) - 1) / h + 1)) * d1
        return update

    def _sde_update(
        self, sample: Array, start: _NoiseLevel, end: _NoiseLevel, d0: Array, d1: Array | None
    ) -> NDArray[Any]:
        """σₜ/σₛ e⁻ʰ x + αₜ (1 - e⁻²ʰ) D₀, plus the second-order term in D₁ (SDE-DPM-Solver++)."""
        h = end.lambda_t - start.lambda_t
        phi = end.alpha * (1 - np.exp(-2 * h))
        update: NDArray[Any] = end.sigma / start.sigma * np.exp(-h) * sample + phi * d0
        if d1 is not None and self.solver_type == "midpoint":
            update = update + np.float32(0.5) * phi * d1
        elif d1 is not None:
            update = update + np.float32(end.alpha * ((1 - np.exp(-2 * h)) / (-2 * h) + 1)) * d1
        return update

    def _ends_in_first_order(self, inputs: StepInput) -> bool:
        """Whether this is the last step, and one of first order."""
        count = len(inputs.plan.timesteps)
        few = self.lower_order_final and count < _FEW_STEPS
        return inputs.index == count - 1 and (self.euler_at_final or few or self.final_sigmas_type == "zero")

    def _denoised(self, sample: Array, model_output: Array, level: _NoiseLevel) -> Array:
        """x₀ as the model predicts it, thresholded if the settings say so."""
        if self.prediction_type == "epsilon":
            denoised: NDArray[Any] = (sample - level.sigma * model_output) / level.alpha
        elif self.prediction_type == "v_prediction":
            denoised = level.alpha * sample - level.sigma * model_output
        else:
            denoised = model_output
        if self.thresholding:
            return dynamic_threshold(denoised, self.dynamic_thresholding_ratio, self.sample_max_value)
        return np.asarray(denoised, np.float32)
