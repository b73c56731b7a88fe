"""The loop in which both stages of Würstchen are sampled."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from vinograph.families.contract import Array, Output, Session, Step
from vinograph.families.evaluation_request import EvaluationRequest
from vinograph.families.evaluations import EvaluationPlan, Outputs, StepSpan, plan_evaluations, plan_extrapolation
from vinograph.families.shared import run_callback
from vinograph.noise import Noise
from vinograph.schedulers import TimeStep, WuerstchenSampler

Conditioning = Mapping[str, Array]
"""The inputs of a stage that stay the same in every step."""
Predict = Callable[[Array, np.float32, slice], Array]
"""Predicts the noise in latents at a time, by these rows of the conditioning."""


@dataclass(frozen=True)
class Sampling:
    """How one stage is sampled. The last of ``timesteps`` is where sampling ends."""

    sampler: WuerstchenSampler
    timesteps: Array
    guidance_scale: float
    evaluations: EvaluationPlan
    callback: Callable[..., Any] | None
    noise: Noise

    @property
    def guided(self) -> bool:
        """Whether the stage is guided, in all of its steps or in some."""
        return self.guidance_scale > 1


def evaluations_of(
    request: EvaluationRequest, timesteps: Array, guidance_scale: float, total: int = 0
) -> EvaluationPlan:
    """The evaluations between ``timesteps``; where ``total`` steps are more, they are the last of these.

    Raises:
        RequestError: no step lies in the guidance interval.
    """
    return plan_evaluations(request, _span(timesteps, total), guided=guidance_scale > 1)


def prior_evaluations_of(
    request: EvaluationRequest, timesteps: Array, guidance_scale: float, out: Output, total: int = 0
) -> EvaluationPlan:
    """The same for the prior, whose steps may be extrapolated.

    Raises:
        RequestError: no step lies in the guidance interval.
    """
    plan = evaluations_of(request, timesteps, guidance_scale, total)
    return plan_extrapolation(plan, request, _span(timesteps, total), "", out)


def _span(timesteps: Array, total: int) -> StepSpan:
    done = len(timesteps) - 1
    last = max(total, done)
    return StepSpan(last - done, last, last)


def denoise(
    stage: str,
    sampling: Sampling,
    latents: Array,
    predict: Predict,
    show: Callable[[Array], Image.Image],
    out: Output,
) -> Generator[Step, None, Array]:
    """Sample a stage from ``latents``, yielding each step with a preview by ``show``."""
    sampler, timesteps, state = sampling.sampler, sampling.timesteps, None
    outputs = Outputs(sampling.evaluations, with_text=_first_half)
    for index, timestep in enumerate(timesteps[:-1]):
        with out.timed(stage):
            noise = outputs.at(index, partial(_evaluate, sampling, predict, latents, timestep))
            predicted_noise = _guide(noise, sampling.guidance_scale, len(latents))
            stepped = sampler.advance(
                TimeStep(timesteps, index, latents, predicted_noise, sampling.noise.normal, state)
            )
        latents, state = stepped.sample, stepped.state
        if sampling.callback is not None:
            latents = run_callback(sampling.callback, index, timestep, {"latents": latents})["latents"]
        yield Step(stage, index + 1, len(timesteps) - 1, partial(show, stepped.denoised))
    return latents


def predictor(session: Session, conditioning: Conditioning) -> Predict:
    """Predict noise by ``session``. Under guidance, the rows of ``conditioning`` with the text come first."""

    def predict(latents: Array, timestep: np.float32, rows: slice) -> Array:
        inputs = {name: value[rows] for name, value in conditioning.items()}
        return session({"x": latents, "r": np.full(len(latents), timestep, np.float32), **inputs})["noise"]

    return predict


def _evaluate(sampling: Sampling, predict: Predict, latents: Array, timestep: np.float32, guided: bool) -> Array:
    """The noise that is predicted; where it is ``guided``, first with the text."""
    count = len(latents)
    if sampling.guided and not sampling.evaluations.always_guided:
        halves = (slice(count), slice(count, None))[: 1 + guided]
        return np.concatenate([predict(latents, timestep, each) for each in halves])
    return predict(np.concatenate([latents, latents]) if guided else latents, timestep, slice(None))


def _first_half(rows: Array) -> Array:
    return rows[: len(rows) // 2]


def _guide(noise: Array, scale: float, count: int) -> Array:
    """Classifier-free guidance (arXiv 2207.12598) of ``noise`` that has more rows than ``count``."""
    return noise if len(noise) == count else _lerp(noise[count:], noise[:count], scale)


def _lerp(start: Array, end: Array, weight: float) -> Array:
    """Linear interpolation, rounded as ``torch.lerp`` rounds it."""
    scale = np.float32(weight)
    return start + scale * (end - start) if scale < 0.5 else end - (end - start) * (1 - scale)
