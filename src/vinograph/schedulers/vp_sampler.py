"""Variance-preserving samplers, of the process √ᾱ x₀ + √(1 - ᾱ) ε (arXiv 2006.11239)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import noise_schedule
from vinograph.schedulers.sampler import SPACINGS, Array, Sampler, SamplingPlan, StepRequest, setting


def dynamic_threshold(denoised: Array, ratio: float, largest: float) -> Array:
    """Dynamic thresholding of x₀ (Saharia et al., arXiv 2205.11487, section 2.3).

    Each sample is clipped to the ``ratio`` quantile of its absolute values, and divided by it. The
    quantile is kept between 1 and ``largest``.
    """
    limit = np.quantile(np.abs(denoised).reshape(len(denoised), -1), ratio, axis=1)
    limit = np.minimum(np.maximum(limit, 1), largest).astype(np.float32).reshape(-1, *[1] * (denoised.ndim - 1))
    return np.asarray(np.clip(denoised, -limit, limit) / limit, np.float32)


@dataclass(frozen=True)
class VPSampler(Sampler):
    """A sampler whose sample is √ᾱ signal and √(1 - ᾱ) noise, and that counts its steps in ᾱ."""

    clip_sample: bool = setting(False)
    clip_sample_range: float = setting(1.0, least=0)
    set_alpha_to_one: bool = setting(True)
    timestep_spacing: str = setting("leading", *SPACINGS)
    thresholding: bool = setting(False)
    dynamic_thresholding_ratio: float = setting(0.995, least=0, most=1)
    sample_max_value: float = setting(1.0, least=1e-6)

    def _alpha_cumprod(self, timestep: int) -> np.float32:
        """ᾱ at a timestep; below the first one, the value that sampling ends at."""
        if timestep >= 0:
            return np.float32(self.alphas_cumprod[timestep])
        return np.float32(1) if self.set_alpha_to_one else np.float32(self.alphas_cumprod[0])

    def _whole_timesteps(self, request: StepRequest) -> NDArray[np.int64]:
        """The request's timesteps, or as many as it asks for, spaced by the setting; they fall."""
        if request.timesteps is not None:
            return np.array(request.timesteps).astype(np.int64)
        count, train = request.num_inference_steps, self.num_train_timesteps
        timesteps = noise_schedule.spaced_timesteps(self.timestep_spacing, train, count, self.steps_offset).round()
        if timesteps[0] >= train or timesteps[-1] < 0:
            raise RequestError(f"{count} steps leave this model's timesteps; give one step more, or fewer")
        return np.asarray(timesteps, np.int64)

    def add_noise(self, plan: SamplingPlan, index: int, original: Array, noise: Array) -> Array:
        """√ᾱ ``original`` + √(1 - ᾱ) ``noise`` (arXiv 2006.11239, equation 4)."""
        alpha_cumprod = self._alpha_cumprod(int(plan.timesteps[index]))
        return np.asarray(np.sqrt(alpha_cumprod) * original + np.sqrt(1 - alpha_cumprod) * noise, np.float32)

    def _denoised(self, sample: Array, model_output: Array, alpha_cumprod: np.float32) -> Array:
        """x₀ as the model predicts it, clipped or thresholded as the settings say."""
        denoised = self.unclipped_denoised(sample, model_output, alpha_cumprod)
        if self.thresholding:
            return dynamic_threshold(denoised, self.dynamic_thresholding_ratio, self.sample_max_value)
        if self.clip_sample:
            return np.asarray(np.clip(denoised, -self.clip_sample_range, self.clip_sample_range), np.float32)
        return denoised

    def unclipped_denoised(self, sample: Array, model_output: Array, alpha_cumprod: np.float32) -> Array:
        """x₀ as the model predicts it, whatever the settings say of clipping."""
        root_alpha, root_beta = np.sqrt(alpha_cumprod), np.sqrt(1 - alpha_cumprod)
        if self.prediction_type == "epsilon":
            return np.asarray((sample - root_beta * model_output) / root_alpha, np.float32)
        if self.prediction_type == "v_prediction":
            return np.asarray(root_alpha * sample - root_beta * model_output, np.float32)
        return np.asarray(model_output, np.float32)

    def epsilon(self, sample: Array, model_output: Array, alpha_cumprod: np.float32) -> Array:
        """The noise in ``sample`` as the model predicts it."""
        root_alpha, root_beta = np.sqrt(alpha_cumprod), np.sqrt(1 - alpha_cumprod)
        if self.prediction_type == "epsilon":
            return model_output
        if self.prediction_type == "v_prediction":
            return np.asarray(root_alpha * model_output + root_beta * sample, np.float32)
        return np.asarray((sample - root_alpha * model_output) / root_beta, np.float32)
