"""What DPM-Solver++ and UniPC share: they step in λ = log α - log σ by the prediction of x₀."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import noise_schedule
from vinograph.schedulers.sampler import Array, SamplingPlan, StepRequest, setting
from vinograph.schedulers.sigma_spacing import SigmaSampler
from vinograph.schedulers.vp_sampler import dynamic_threshold


@dataclass(frozen=True)
class NoiseLevel:
    """A point of the process αₜ x₀ + σₜ ε, with λₜ = log αₜ - log σₜ."""

    alpha: np.float32
    sigma: np.float32
    lambda_t: np.float32

    @classmethod
    def at(cls, sigma: np.float32) -> NoiseLevel:
        """The point at which the noise has the deviation ``sigma`` for a signal of full size."""
        alpha = 1 / np.sqrt(sigma**2 + 1)
        noise = sigma * alpha
        with np.errstate(divide="ignore"):  # no noise is left at the end, so λ is infinite
            return cls(alpha, noise, np.log(alpha) - np.log(noise))


@dataclass(frozen=True)
class DataPredictionSampler(SigmaSampler):
    """A sampler that takes whole timesteps, of which all spacings but "trailing" leave 0 out."""

    thresholding: bool = setting(False)
    dynamic_thresholding_ratio: float = setting(0.995, least=0, most=1)
    sample_max_value: float = setting(1.0, least=1e-6)
    lower_order_final: bool = setting(True)
    final_sigmas_type: str = setting("zero", "zero", "sigma_min")

    fixed_settings: ClassVar[Mapping[str, Any]] = {"use_flow_sigmas": False, "use_dynamic_shifting": False}

    def _training_sigmas(self) -> Array:
        alphas_cumprod = self.alphas_cumprod
        if self.rescale_betas_zero_snr:
            alphas_cumprod = noise_schedule.clamp_final_alpha(alphas_cumprod)
        return noise_schedule.sigmas_from_alphas_cumprod(alphas_cumprod)

    def _plan(self, request: StepRequest) -> SamplingPlan:
        self._check_custom(request.timesteps)
        count, training_sigmas = request.num_inference_steps, self._training_sigmas()
        if self.spaces_sigmas:
            sigmas = self._space(count, training_sigmas)
            timesteps: NDArray[Any] = noise_schedule.sigma_to_t(sigmas, np.log(training_sigmas))
            timesteps = timesteps.round() if self._rounds else timesteps
        else:
            timesteps = self._spaced_timesteps(request, training_sigmas)
            sigmas = np.interp(timesteps, np.arange(len(training_sigmas)), training_sigmas)
        lowest = noise_schedule.sigmas_from_alphas_cumprod(self.alphas_cumprod[:1])[0]
        levels: Array = np.append(sigmas, lowest if self.final_sigmas_type == "sigma_min" else 0.0).astype(np.float32)
        if not noise_schedule.is_decreasing(levels[:-1]):
            raise RequestError(f"{count} steps are too many for this model's scheduler; give fewer")
        return SamplingPlan(timesteps.astype(np.int64).astype(np.float32), levels, len(timesteps))

    @property
    def _rounds(self) -> bool:
        """Whether timesteps of spaced sigmas are rounded; diffusers cuts off the fraction of the others."""
        return not (self.use_exponential_sigmas or self.use_beta_sigmas)

    def _space(self, count: int, training_sigmas: Array) -> NDArray[np.float64]:
        """``count`` σ by the setting that spaces them, through all of the training's."""
        ends = float(training_sigmas[-1]), float(training_sigmas[0])
        return self.spaced_sigmas(*ends, count, training_sigmas)

    def _spaced_timesteps(self, request: StepRequest, training_sigmas: Array) -> NDArray[np.int64]:
        """Timesteps [n], falling."""
        if request.timesteps is not None:
            return np.array(request.timesteps).astype(np.int64)
        count, train, last = request.num_inference_steps, self.num_train_timesteps, self._last(training_sigmas)
        if self.timestep_spacing == "linspace":
            timesteps: NDArray[Any] = np.linspace(0, last - 1, count + 1).round()[::-1][:-1]
        elif self.timestep_spacing == "leading":
            timesteps = (np.arange(count + 1) * (last // (count + 1)))[::-1][:-1] + self.steps_offset
        else:
            timesteps = np.arange(last, 0, -train / count).round() - 1
        return timesteps.astype(np.int64)

    def _last(self, training_sigmas: Array) -> int:
        """The number of training timesteps that are used."""
        return len(training_sigmas)

    def add_noise(self, plan: SamplingPlan, index: int, original: Array, noise: Array) -> Array:
        """αₜ ``original`` + σₜ ``noise``."""
        level = NoiseLevel.at(plan.sigmas[index])
        return np.asarray(level.alpha * original + level.sigma * noise, np.float32)

    def _denoised(self, sample: Array, model_output: Array, level: NoiseLevel) -> Array:
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
