"""DPM-Solver++ (Lu et al., arXiv 2211.01095), multistep, of first and second order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import levels
from vinograph.schedulers.alphas import threshold
from vinograph.schedulers.sampler import Array, Asked, Plan, Sampler, State, Stepped, setting

_FEW = 15  # steps, under which the last one is of first order


@dataclass(frozen=True)
class _Level:
    """A point of the process: signal α, noise σ, and λ, half the logarithm of their ratio squared."""

    alpha: np.float32
    sigma: np.float32
    log_ratio: np.float32

    @classmethod
    def at(cls, sigma: np.float32) -> _Level:
        """The point where noise beside a full signal is ``sigma``."""
        alpha = 1 / np.sqrt(sigma**2 + 1)
        noise = sigma * alpha
        with np.errstate(divide="ignore"):  # no noise is left: an infinite ratio
            return cls(alpha, noise, np.log(alpha) - np.log(noise))


@dataclass(frozen=True)
class DPMSolverMultistepScheduler(Sampler):
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

    computed: ClassVar[Mapping[str, Any]] = {
        "use_beta_sigmas": False,
        "use_flow_sigmas": False,
        "use_dynamic_shifting": False,
        "variance_type": None,
    }
    takes_timesteps: ClassVar[bool] = True

    def _plan(self, asked: Asked) -> Plan:
        left = self.alphas_cumprod
        training = levels.sigmas_of(levels.never_zero(left) if self.rescale_betas_zero_snr else left)
        own = self.use_karras_sigmas or self.use_exponential_sigmas or self.use_lu_lambdas
        if asked.timesteps is not None and own:
            raise RequestError("this model's scheduler spaces its own sigmas and takes no timesteps")
        if own:
            told, at = self._own_sigmas(asked.count, training)
        else:
            told = self._spaced(asked, training)
            at = np.interp(told, np.arange(len(training)), training)
        end = levels.sigmas_of(left[:1])[0] if self.final_sigmas_type == "sigma_min" else 0.0
        sigmas = np.append(at, end).astype(np.float32)
        if not levels.falling(sigmas[:-1]):
            raise RequestError(f"{asked.count} steps are too many for this model's scheduler; give fewer")
        return Plan(told.astype(np.int64).astype(np.float32), sigmas, len(told))

    def _own_sigmas(self, count: int, training: Array) -> tuple[NDArray[Any], NDArray[Any]]:
        lowest, highest, logs = float(training[0]), float(training[-1]), np.log(training)
        if self.use_karras_sigmas:
            at = levels.karras(highest, lowest, count)
        elif self.use_lu_lambdas:  # evenly spaced in λ
            low, high = float(logs[0]), float(logs[-1])
            at = np.exp(high + np.linspace(0, 1, count) * (low - high))
        else:
            at = levels.exponential(highest, lowest, count)
        told = levels.timesteps_of(at, logs)
        whole = not self.use_exponential_sigmas and self.beta_schedule != "squaredcos_cap_v2"
        return (told.round() if whole else told), at

    def _spaced(self, asked: Asked, training: Array) -> NDArray[np.int64]:
        """The timesteps; all spacings but "trailing" leave the last one out."""
        if asked.timesteps is not None:
            return np.array(asked.timesteps).astype(np.int64)
        least = -np.inf if self.lambda_min_clipped is None else self.lambda_min_clipped
        count, train = asked.count, self.num_train_timesteps
        last = train - int(np.searchsorted(-np.log(training)[::-1], least))
        if self.timestep_spacing == "linspace":
            told: NDArray[Any] = np.linspace(0, last - 1, count + 1).round()[::-1][:-1]
        elif self.timestep_spacing == "leading":
            told = (np.arange(count + 1) * (last // (count + 1)))[::-1][:-1] + self.steps_offset
        else:
            told = np.arange(last, 0, -train / count).round() - 1
        return told.astype(np.int64)

    def add_noise(self, plan: Plan, index: int, clean: Array, noise: Array) -> Array:
        """α ``clean`` and σ ``noise``."""
        level = _Level.at(plan.sigmas[index])
        return np.asarray(level.alpha * clean + level.sigma * noise, np.float32)

    def step(self, state: State) -> Stepped:
        """One step, of second order where there was one before."""
        plan, index, sample, before = state.plan, state.index, state.sample, state.before
        now, then = _Level.at(plan.sigmas[index]), _Level.at(plan.sigmas[index + 1])
        clean = self._clean(sample, state.predicted, now)
        stochastic = self.algorithm_type == "sde-dpmsolver++"
        noise = state.draw(sample.shape) if stochastic else None
        ahead = then.log_ratio - now.log_ratio
        # The whole way, as a share of the clean sample; it is negative in the deterministic solver's equations.
        whole = then.alpha * (1 - np.exp(-2 * ahead)) if stochastic else then.alpha * (np.exp(-ahead) - 1)
        keep = then.sigma / now.sigma * (np.exp(-ahead) if stochastic else np.float32(1))
        moved = keep * sample + whole * clean if stochastic else keep * sample - whole * clean
        if self.solver_order == 2 and before is not None and not self._ends_plainly(plan, index):
            passed = now.log_ratio - _Level.at(plan.sigmas[index - 1]).log_ratio
            slope = 1 / (passed / ahead) * (clean - before)
            moved = moved + self._bend(then.alpha, ahead, whole) * slope
        if noise is not None:
            moved = moved + then.sigma * np.sqrt(1 - np.exp(-2 * ahead)) * noise
        return Stepped(np.asarray(moved, np.float32), clean)

    def _bend(self, alpha: np.float32, ahead: np.float32, whole: np.float32) -> np.float32:
        """How much of the clean sample's slope counts."""
        if self.solver_type == "midpoint":
            return np.float32(0.5) * (whole if self.algorithm_type == "sde-dpmsolver++" else -whole)
        if self.algorithm_type == "sde-dpmsolver++":
            return np.float32(alpha * ((1 - np.exp(-2 * ahead)) / (-2 * ahead) + 1))
        return np.float32(alpha * ((np.exp(-ahead) - 1) / ahead + 1))

    def _ends_plainly(self, plan: Plan, index: int) -> bool:
        few = self.lower_order_final and len(plan.timesteps) < _FEW
        return index == len(plan.timesteps) - 1 and (self.euler_at_final or few or self.final_sigmas_type == "zero")

    def _clean(self, sample: Array, predicted: Array, now: _Level) -> Array:
        if self.prediction_type == "epsilon":
            clean: NDArray[Any] = (sample - now.sigma * predicted) / now.alpha
        elif self.prediction_type == "v_prediction":
            clean = now.alpha * sample - now.sigma * predicted
        else:
            clean = predicted
        if self.thresholding:
            return threshold(clean, self.dynamic_thresholding_ratio, self.sample_max_value)
        return np.asarray(clean, np.float32)
