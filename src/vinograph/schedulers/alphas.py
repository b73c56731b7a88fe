"""Samplers that count in ᾱ: DDIM (Song et al., arXiv 2010.02502) and the consistency sampler (arXiv 2310.04378)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vinograph.errors import RequestError
from vinograph.schedulers import levels
from vinograph.schedulers.sampler import (
    BETA_SCHEDULES,
    SPACINGS,
    Array,
    Asked,
    Plan,
    Sampler,
    State,
    Stepped,
    setting,
)

_SIGMA_DATA = 0.5  # deviation of the data, in the consistency model's boundary condition


def threshold(clean: Array, ratio: float, limit: float) -> Array:
    """Dynamic thresholding (arXiv 2205.11487): within the ``ratio`` quantile of each sample, brought to [-1, 1]."""
    size = np.quantile(np.abs(clean).reshape(len(clean), -1), ratio, axis=1)
    size = np.minimum(np.maximum(size, 1), limit).astype(np.float32).reshape(-1, *[1] * (clean.ndim - 1))
    return np.asarray(np.clip(clean, -size, size) / size, np.float32)


@dataclass(frozen=True)
class OverAlpha(Sampler):
    """The sample is √ᾱ signal and √(1 - ᾱ) noise."""

    clip_sample: bool = setting(False)
    clip_sample_range: float = setting(1.0, least=0)
    set_alpha_to_one: bool = setting(True)
    timestep_spacing: str = setting("leading", *SPACINGS)
    thresholding: bool = setting(False)
    dynamic_thresholding_ratio: float = setting(0.995, least=0, most=1)
    sample_max_value: float = setting(1.0, least=1e-6)

    def _left(self, timestep: int) -> np.float32:
        """ᾱ at a timestep; below the first one, what sampling ends at."""
        if timestep >= 0:
            return np.float32(self.alphas_cumprod[timestep])
        return np.float32(1) if self.set_alpha_to_one else np.float32(self.alphas_cumprod[0])

    def add_noise(self, plan: Plan, index: int, clean: Array, noise: Array) -> Array:
        """√ᾱ ``clean`` and √(1 - ᾱ) ``noise``."""
        left = self._left(int(plan.timesteps[index]))
        return np.asarray(np.sqrt(left) * clean + np.sqrt(1 - left) * noise, np.float32)

    def _clean(self, sample: Array, predicted: Array, left: np.float32) -> Array:
        if self.prediction_type == "epsilon":
            clean = (sample - np.sqrt(1 - left) * predicted) / np.sqrt(left)
        elif self.prediction_type == "v_prediction":
            clean = np.sqrt(left) * sample - np.sqrt(1 - left) * predicted
        else:
            clean = predicted
        clean = np.asarray(clean, np.float32)
        if self.thresholding:
            return threshold(clean, self.dynamic_thresholding_ratio, self.sample_max_value)
        return np.clip(clean, -self.clip_sample_range, self.clip_sample_range) if self.clip_sample else clean


@dataclass(frozen=True)
class DDIMScheduler(OverAlpha):
    """Implicit sampling; ``eta`` of the plan is the share of fresh noise (equation 16)."""

    clip_sample: bool = setting(True)

    takes_eta: ClassVar[bool] = True

    def _plan(self, asked: Asked) -> Plan:
        count, train = asked.count, self.num_train_timesteps
        spaced = levels.spaced(self.timestep_spacing, train, count, self.steps_offset).round()
        if spaced[0] >= train or spaced[-1] < 0:
            raise RequestError(f"{count} steps leave this model's timesteps; give one step more, or fewer")
        return Plan(spaced.astype(np.float32), np.empty(0, np.float32), count, eta=asked.eta)

    def step(self, state: State) -> Stepped:
        """Equation 12: the clean sample, the direction to where the step ends, and fresh noise."""
        plan, sample = state.plan, state.sample
        now = int(plan.timesteps[state.index])
        left, then = self._left(now), self._left(now - self.num_train_timesteps // plan.count)
        clean = self._clean(sample, state.predicted, left)
        deviation = np.float32(plan.eta) * np.sqrt((1 - then) / (1 - left) * (1 - left / then))
        direction = np.sqrt(1 - then - deviation**2) * self._noise(sample, state.predicted, left)
        moved = np.sqrt(then) * clean + direction
        if plan.eta > 0:
            moved = moved + deviation * state.draw(sample.shape)
        return Stepped(np.asarray(moved, np.float32), clean)

    def _noise(self, sample: Array, predicted: Array, left: np.float32) -> Array:
        if self.prediction_type == "epsilon":
            return predicted
        if self.prediction_type == "v_prediction":
            return np.asarray(np.sqrt(left) * predicted + np.sqrt(1 - left) * sample, np.float32)
        return np.asarray((sample - np.sqrt(left) * predicted) / np.sqrt(1 - left), np.float32)


@dataclass(frozen=True)
class LCMScheduler(OverAlpha):
    """Consistency sampling: each step goes to the clean sample, and back to noise but for the last."""

    beta_start: float = setting(0.00085, least=0)
    beta_end: float = setting(0.012, least=0)
    beta_schedule: str = setting("scaled_linear", *BETA_SCHEDULES)
    original_inference_steps: int = setting(50, least=1)
    timestep_scaling: float = setting(10.0)

    takes_timesteps: ClassVar[bool] = True
    distilled: ClassVar[bool] = True

    def _plan(self, asked: Asked) -> Plan:
        if asked.timesteps is not None:
            told = np.array(asked.timesteps).astype(np.int64)
        else:
            count, origin = asked.count, self.original_inference_steps
            if count > origin:
                raise RequestError(f"{count} steps are more than this model was distilled from; give at most {origin}")
            trained = (np.arange(1, origin + 1) * (self.num_train_timesteps // origin) - 1)[::-1]
            told = trained[np.floor(np.linspace(0, origin, count, endpoint=False)).astype(np.int64)]
        return Plan(told.astype(np.float32), np.empty(0, np.float32), len(told))

    def step(self, state: State) -> Stepped:
        """The clean sample under the boundary condition (arXiv 2303.01469, equation 5), noised to the next step."""
        timesteps, index, sample = state.plan.timesteps, state.index, state.sample
        left = self._left(int(timesteps[index]))
        scaled = timesteps[index] * np.float32(self.timestep_scaling)
        data = np.float32(_SIGMA_DATA**2)
        skip, out = data / (scaled**2 + data), scaled / np.sqrt(scaled**2 + data)
        clean = out * self._clean(sample, state.predicted, left) + skip * sample
        if index == len(timesteps) - 1:
            return Stepped(clean, clean)
        then = self._left(int(timesteps[index + 1]))
        return Stepped(np.sqrt(then) * clean + np.sqrt(1 - then) * state.draw(sample.shape), clean)
