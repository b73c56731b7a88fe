"""UniPC, a predictor and a corrector that share their evaluations (Zhao et al., arXiv 2302.04867)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.schedulers.data_prediction import DataPredictionSampler, NoiseLevel
from vinograph.schedulers.sampler import Array, SamplingPlan, StepInput, StepOutput, setting


@dataclass(frozen=True)
class _State:
    """What a step leaves for the next: its corrected sample, its order, and x₀ of the last steps."""

    sample: Array
    order: int
    denoised: tuple[Array, ...]


@dataclass(frozen=True)
class UniPCMultistepSampler(DataPredictionSampler):
    """UniPC over the prediction of x₀, with B(h) = h ("bh1") or eʰ - 1 ("bh2").

    The first steps, and with ``lower_order_final`` the last, have lower orders.
    """

    solver_order: int = setting(2, 1, 2, 3)
    solver_type: str = setting("bh2", "bh1", "bh2")
    lower_order_final: bool = setting(True, True)
    sigma_min: float | None = setting(None, kind=float, least=1e-6)
    sigma_max: float | None = setting(None, kind=float, least=1e-6)

    scheduler_class: ClassVar[str] = "UniPCMultistepScheduler"
    fixed_settings: ClassVar[Mapping[str, Any]] = {
        "predict_x0": True,
        **DataPredictionSampler.fixed_settings,
        "disable_corrector": [],
        "solver_p": None,
        "shift_terminal": None,
    }
    aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "solver_type": {"midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}
    }

    def _space(self, count: int, training_sigmas: Array) -> NDArray[np.float64]:
        """``count`` σ by the setting that spaces them, between ``sigma_max`` and ``sigma_min``."""
        highest = float(training_sigmas[-1]) if self.sigma_max is None else self.sigma_max
        lowest = float(training_sigmas[0]) if self.sigma_min is None else self.sigma_min
        return self.spaced_sigmas(highest, lowest, count, training_sigmas)

    def step(self, inputs: StepInput) -> StepOutput:
        """Correct the sample with the new evaluation, then predict the next one (algorithms 5 to 8)."""
        plan, index, state = inputs.plan, inputs.index, inputs.state
        here = NoiseLevel.at(plan.sigmas[index])
        denoised = self._denoised(inputs.sample, inputs.model_output, here)
        sample = inputs.sample
        known: tuple[Array, ...] = (denoised,)
        if isinstance(state, _State):
            levels = self._levels(plan, index, state.order)
            sample = self._update(state.sample, levels, state.denoised[: state.order], denoised)
            known = (denoised, *state.denoised)[: self.solver_order]
        order = min(self.solver_order, len(plan.timesteps) - index, len(known))
        predicted = self._update(sample, self._levels(plan, index + 1, order), known[:order])
        return StepOutput(predicted, denoised, _State(sample, order, known))

    def _levels(self, plan: SamplingPlan, end: int, order: int) -> list[NoiseLevel]:
        """Noise levels where a step ends, where it starts, and before that, by the step's order."""
        return [NoiseLevel.at(plan.sigmas[end - back]) for back in range(order + 1)]

    def _update(
        self, sample: Array, levels: Sequence[NoiseLevel], denoised: Sequence[Array], corrected: Array | None = None
    ) -> Array:
        """One step of UniP, or of UniC where the end's own x₀ is ``corrected`` (equations 3 and 9)."""
        end, start = levels[0], levels[1]
        minus_h = start.lambda_t - end.lambda_t
        b_h = minus_h if self.solver_type == "bh1" else np.expm1(minus_h)
        ratios = [np.float32((each.lambda_t - start.lambda_t) / -minus_h) for each in levels[2:]]
        differences = [(each - denoised[0]) / ratio for each, ratio in zip(denoised[1:], ratios, strict=True)]
        if corrected is not None:
            differences.append(corrected - denoised[0])
            ratios.append(np.float32(1))
        update = end.sigma / start.sigma * sample - end.alpha * np.expm1(minus_h) * denoised[0]
        for weight, each in zip(_weights(ratios, minus_h, b_h), differences, strict=True):
            update = update - end.alpha * b_h * weight * each
        return np.asarray(update, np.float32)


def _weights(ratios: Sequence[np.float32], minus_h: np.float32, b_h: np.float32) -> NDArray[np.float32]:
    """The weights ρ of the differences, which solve equation 5; for a single one, 1/2."""
    if len(ratios) <= 1:
        return np.full(len(ratios), 0.5, np.float32)
    rows, values = [], []
    phi = np.expm1(minus_h) / minus_h - 1
    for power in range(len(ratios)):
        rows.append(np.array(ratios, np.float32) ** power)
        values.append(phi * math.factorial(power + 1) / b_h)
        phi = phi / minus_h - 1 / math.factorial(power + 2)
    return np.linalg.solve(np.stack(rows), np.array(values, np.float32)).astype(np.float32)
