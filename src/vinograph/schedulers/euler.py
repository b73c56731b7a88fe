"""Euler's method over σ, with and without fresh noise (Karras et al., arXiv 2206.00364)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import levels
from vinograph.schedulers.sampler import Array, Asked, Plan, Sampler, State, Stepped, setting


@dataclass(frozen=True)
class _OverSigma(Sampler):
    """The sample is the signal at full size and noise of deviation σ beside it."""

    @cached_property
    def training_sigmas(self) -> Array:
        """σ of each training timestep."""
        left = self.alphas_cumprod
        return levels.sigmas_of(levels.never_zero(left) if self.rescale_betas_zero_snr else left)

    def _planned(self, timesteps: NDArray[Any], sigmas: NDArray[Any], count: int) -> Plan:
        sigmas = sigmas.astype(np.float32)
        highest = sigmas.max()
        if self.timestep_spacing == "leading":
            highest = np.sqrt(highest**2 + 1)
        return Plan(timesteps.astype(np.float32), sigmas, count, float(highest))

    def scale_input(self, plan: Plan, index: int, sample: Array) -> Array:
        """Brought to a deviation of one."""
        return np.asarray(sample / np.sqrt(plan.sigmas[index] ** 2 + 1), np.float32)

    def add_noise(self, plan: Plan, index: int, clean: Array, noise: Array) -> Array:
        """``clean`` and σ times ``noise``."""
        return np.asarray(clean + noise * plan.sigmas[index], np.float32)

    def _clean(self, sample: Array, predicted: Array, sigma: np.float32) -> Array:
        if self.prediction_type == "epsilon":
            return sample - sigma * predicted
        if self.prediction_type == "v_prediction":
            return np.asarray(predicted * (-sigma / np.sqrt(sigma**2 + 1)) + sample / (sigma**2 + 1), np.float32)
        return predicted


@dataclass(frozen=True)
class EulerAncestralDiscreteScheduler(_OverSigma):
    """Euler's method to a lower σ than the step's end, and fresh noise up to that."""

    prediction_type: str = setting("epsilon", "epsilon", "v_prediction")

    def _plan(self, asked: Asked) -> Plan:
        spaced = levels.spaced(self.timestep_spacing, self.num_train_timesteps, asked.count, self.steps_offset)
        told = spaced.astype(np.float32)
        at = np.interp(told, np.arange(self.num_train_timesteps), self.training_sigmas)
        return self._planned(told, np.append(at, 0.0), asked.count)

    def step(self, state: State) -> Stepped:
        """One step; it draws noise even where none is added."""
        now, then = state.plan.sigmas[state.index], state.plan.sigmas[state.index + 1]
        clean = self._clean(state.sample, state.predicted, now)
        fresh = np.sqrt(then**2 * (now**2 - then**2) / now**2)
        down = then**2 / now  # √(then² - fresh²) without the difference, which at high σ is all rounding
        moved = state.sample + (state.sample - clean) / now * (down - now)
        return Stepped(moved + state.draw(moved.shape) * fresh, clean)


@dataclass(frozen=True)
class EulerDiscreteScheduler(_OverSigma):
    """Euler's method without fresh noise."""

    interpolation_type: str = setting("linear", "linear", "log_linear")
    use_karras_sigmas: bool = setting(False)
    use_exponential_sigmas: bool = setting(False)
    sigma_min: float | None = setting(None, kind=float, least=1e-6)
    sigma_max: float | None = setting(None, kind=float, least=1e-6)
    timestep_type: str = setting("discrete", "discrete", "continuous")
    final_sigmas_type: str = setting("zero", "zero", "sigma_min")

    computed: ClassVar[Mapping[str, Any]] = {"use_beta_sigmas": False}
    takes_timesteps: ClassVar[bool] = True
    takes_sigmas: ClassVar[bool] = True

    @property
    def _continuous(self) -> bool:
        """Whether the model is told the logarithm of σ."""
        return self.timestep_type == "continuous" and self.prediction_type == "v_prediction"

    def _plan(self, asked: Asked) -> Plan:
        own = self.use_karras_sigmas or self.use_exponential_sigmas or self._continuous
        if asked.timesteps is not None and own:
            raise RequestError("this model's scheduler spaces its own sigmas and takes no timesteps; give sigmas")
        log_sigmas = np.log(self.training_sigmas)
        if asked.sigmas is not None:
            at: NDArray[Any] = np.array(asked.sigmas, np.float32)
            told: NDArray[Any] = levels.timesteps_of(at[:-1], log_sigmas)
        else:
            told, at = self._spaced(asked, log_sigmas)
        plan = self._planned(told, at, asked.count)
        if not self._continuous:
            return plan
        with np.errstate(divide="ignore"):
            return replace(plan, timesteps=np.float32(0.25) * np.log(plan.sigmas[:-1]))

    def _spaced(self, asked: Asked, log_sigmas: Array) -> tuple[NDArray[Any], NDArray[Any]]:
        """Timesteps, and σ with the one that sampling ends at."""
        count, train = asked.count, self.num_train_timesteps
        if asked.timesteps is not None:
            told: NDArray[Any] = np.array(asked.timesteps, np.float32)
        else:
            told = levels.spaced(self.timestep_spacing, train, count, self.steps_offset).astype(np.float32)
        if self.interpolation_type == "linear":
            at: NDArray[Any] = np.interp(told, np.arange(train), self.training_sigmas)
        else:
            at = np.exp(levels.linspace(log_sigmas[-1], log_sigmas[0], count + 1))
        lowest = float(at[-1]) if self.sigma_min is None else self.sigma_min
        highest = float(at[0]) if self.sigma_max is None else self.sigma_max
        if self.use_karras_sigmas or self.use_exponential_sigmas:
            at = (levels.karras if self.use_karras_sigmas else levels.exponential)(highest, lowest, count)
            told = levels.timesteps_of(at, log_sigmas)
        left = self.alphas_cumprod[:1]
        end = levels.sigmas_of(left)[0] if self.final_sigmas_type == "sigma_min" else 0.0
        return told, np.append(at, end)

    def step(self, state: State) -> Stepped:
        """One step along the line through the sample and its clean part."""
        now, then = state.plan.sigmas[state.index], state.plan.sigmas[state.index + 1]
        clean = self._clean(state.sample, state.predicted, now)
        return Stepped(state.sample + (state.sample - clean) / now * (then - now), clean)
