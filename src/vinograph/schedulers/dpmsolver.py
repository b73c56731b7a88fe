"""DPM-Solver++ (Lu et al., arXiv 2211.01095): the multistep solvers of first and second order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.schedulers.data_prediction import DataPredictionSampler, NoiseLevel
from vinograph.schedulers.sampler import Array, StepInput, StepOutput, setting

FEW_STEPS = 15  # with fewer, lower_order_final makes the last one of first order, which is stabler


@dataclass(frozen=True)
class DPMSolverMultistepSampler(DataPredictionSampler):
    """DPM-Solver++ and its stochastic variant. ``lambda_min_clipped`` None means no clipping."""

    solver_order: int = setting(2, 1, 2)
    algorithm_type: str = setting("dpmsolver++", "dpmsolver++", "sde-dpmsolver++")
    solver_type: str = setting("midpoint", "midpoint", "heun")
    euler_at_final: bool = setting(False)
    use_lu_lambdas: bool = setting(False)
    lambda_min_clipped: float | None = setting(None, kind=float)

    scheduler_class: ClassVar[str] = "DPMSolverMultistepScheduler"
    fixed_settings: ClassVar[Mapping[str, Any]] = {
        **DataPredictionSampler.fixed_settings,
        "variance_type": None,
    }
    takes_timesteps: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "solver_type": {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
        "algorithm_type": {"deis": "dpmsolver++"},
    }

    @property
    def _rounds(self) -> bool:
        return super()._rounds and self.beta_schedule != "squaredcos_cap_v2"

    def _space(self, count: int, training_sigmas: Array) -> NDArray[np.float64]:
        """``count`` σ by the setting that spaces them; "lu" spaces evenly in λ (Lu et al., 2022)."""
        if not self.use_lu_lambdas:
            return super()._space(count, training_sigmas)
        low, high = (float(each) for each in np.log(training_sigmas[[0, -1]]))
        return np.asarray(np.exp(high + np.linspace(0, 1, count) * (low - high)))

    def _last(self, training_sigmas: Array) -> int:
        """The number of training timesteps up to ``lambda_min_clipped``."""
        lambda_min = -np.inf if self.lambda_min_clipped is None else self.lambda_min_clipped
        # λ is -log σ, as the signal has its full size.
        return len(training_sigmas) - int(np.searchsorted(-np.log(training_sigmas)[::-1], lambda_min))

    def step(self, inputs: StepInput) -> StepOutput:
        """One step, of second order where the step before is known (algorithm 2, "2M")."""
        plan, index, sample = inputs.plan, inputs.index, inputs.sample
        start, end = NoiseLevel.at(plan.sigmas[index]), NoiseLevel.at(plan.sigmas[index + 1])
        h = end.lambda_t - start.lambda_t
        d0, d1 = self._denoised(sample, inputs.model_output, start), None
        if self.solver_order == 2 and inputs.state is not None and not self._ends_in_first_order(inputs):
            r0 = (start.lambda_t - NoiseLevel.at(plan.sigmas[index - 1]).lambda_t) / h
            d1 = 1 / r0 * (d0 - inputs.state)
        if self.algorithm_type == "sde-dpmsolver++":
            noise = inputs.draw_noise(sample.shape)
            next_sample = self._sde_update(sample, start, end, d0, d1)
            next_sample = next_sample + end.sigma * np.sqrt(1 - np.exp(-2 * h)) * noise
        else:
            next_sample = self._ode_update(sample, start, end, d0, d1)
        return StepOutput(np.asarray(next_sample, np.float32), d0, d0)

    def _ode_update(
        self, sample: Array, start: NoiseLevel, end: NoiseLevel, d0: Array, d1: Array | None
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
        self, sample: Array, start: NoiseLevel, end: NoiseLevel, d0: Array, d1: Array | None
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
        few = self.lower_order_final and count < FEW_STEPS
        return inputs.index == count - 1 and (self.euler_at_final or few or self.final_sigmas_type == "zero")
