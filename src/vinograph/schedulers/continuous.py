"""Samplers of discrete diffusion on Würstchen's process, which is variance preserving in continuous time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vinograph.errors import ModelError, RequestError
from vinograph.schedulers.config import make_sampler
from vinograph.schedulers.data_prediction import DataPredictionSampler
from vinograph.schedulers.dpmsolver import DPMSolverMultistepSampler
from vinograph.schedulers.named import choose, names
from vinograph.schedulers.sampler import Array, SamplingPlan, StepInput, StepOutput
from vinograph.schedulers.sigma_spacing import SPACINGS_OF_SIGMAS
from vinograph.schedulers.wuerstchen import TimeStep, WuerstchenSampler
from vinograph.values import shown

# DDIM and Euler's method over σ are the same step: DPM-Solver++ of first order (arXiv 2211.01095,
# section 4.2). Its stochastic form is the ancestral step, of DDPM and of Euler ancestral alike.
_FIRST_ORDER: Mapping[str, Any] = {"solver_order": 1, "algorithm_type": "dpmsolver++"}
_ANCESTRAL: Mapping[str, Any] = {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"}
_DPM, _UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
_SOLVERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "DDIMScheduler": (_DPM, _FIRST_ORDER),
    "EulerDiscreteScheduler": (_DPM, _FIRST_ORDER),
    "EulerAncestralDiscreteScheduler": (_DPM, _ANCESTRAL),
    _DPM: (_DPM, {}),
    _UNIPC: (_UNIPC, {}),
}


@dataclass(frozen=True)
class SolvedWuerstchenSampler(WuerstchenSampler):
    """A ``solver`` of discrete diffusion, over the noise levels of Würstchen's cosine schedule.

    Where σ is spaced, the steps go from the schedule's highest σ to its lowest one. Else they are
    evenly spaced in time. The last one, to time 0, ends at x₀.
    """

    solver: DataPredictionSampler = field(default_factory=DPMSolverMultistepSampler)

    def timesteps(self, num_inference_steps: int) -> Array:
        """Times from 1 down to 0, [num_inference_steps + 1]."""
        if not self.solver.spaces_sigmas:
            return super().timesteps(num_inference_steps)
        ends = np.array([self._sigma(np.float32(t)) for t in (0, 1)], np.float32)
        sigmas = self.solver.spaced_sigmas(float(ends[1]), float(ends[0]), num_inference_steps, ends)
        times = [self.time_of(np.float32(1 / (sigma**2 + 1))) for sigma in sigmas]
        return np.array([1.0, *times[1:], 0.0], np.float32)

    def advance(self, inputs: TimeStep) -> StepOutput:
        """Do one step by the solver."""
        times = inputs.times
        sigmas = np.array([0.0 if t == 0 else self._sigma(t) for t in times], np.float32)
        plan = SamplingPlan(times[:-1], sigmas, len(times) - 1)
        return self.solver.step(
            StepInput(plan, inputs.index, inputs.sample, inputs.model_output, inputs.draw_noise, inputs.state)
        )

    def _sigma(self, t: np.float32) -> np.float32:
        alpha_cumprod = self.alpha_cumprod(t)
        return np.float32(np.sqrt((1 - alpha_cumprod) / alpha_cumprod))


def continuous_sampler_by_name(value: str | Mapping[str, Any], own: WuerstchenSampler) -> WuerstchenSampler:
    """The sampler that ``value`` asks for, over the schedule of a stage's ``own`` sampler.

    Raises:
        RequestError: there is no such scheduler, or it is not one for continuous time.
    """
    choice = choose(value)
    if choice.scheduler_class not in _SOLVERS:
        raise RequestError(
            f"scheduler {shown(value)} can't sample this model, whose time is continuous; give one of "
            "ddim, euler, euler a, dpm++ 2m, dpm++ 2m sde, unipc"
        )
    kind, settings = _SOLVERS[choice.scheduler_class]
    spaces = any(choice.settings.get(name) for name in SPACINGS_OF_SIGMAS)
    if not spaces and "timestep_spacing" in choice.settings:
        raise RequestError(
            f"scheduler {shown(value)} can't sample this model: without karras, exponential or beta, its steps are "
            "evenly spaced in time"
        )
    known = {each.name for each in dataclasses.fields(WuerstchenSampler)}
    schedule = {name: getattr(own, name) for name in known}
    wanted = {**settings, **{key: each for key, each in choice.settings.items() if key != "clip_sample"}}
    try:
        solver = make_sampler({**wanted, "class": kind})
    except ModelError as error:
        raise RequestError(f"scheduler {shown(value)} can't sample this model: {error}") from error
    assert isinstance(solver, DataPredictionSampler)
    return SolvedWuerstchenSampler(**schedule, solver=solver)


def continuous_names() -> tuple[str, ...]:
    """The names of :func:`vinograph.schedulers.names` that fit continuous time."""
    found = []
    for name in names():
        choice = choose(name)
        spaces = any(choice.settings.get(each) for each in SPACINGS_OF_SIGMAS if each != "use_align_your_steps")
        plain = not {"timestep_spacing", "use_align_your_steps"} & choice.settings.keys()
        if choice.scheduler_class in _SOLVERS and (spaces or plain):
            found.append(name)
    return tuple(found)
