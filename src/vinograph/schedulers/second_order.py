"""Samplers over σ that evaluate the model twice in each step but the last.

A plan of n steps has 2n - 1 evaluations, in the order of diffusers' timesteps. The first evaluation
of a step, at an even index, finds where the second one is made. Its state is None after a step that
is complete.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.schedulers import noise_schedule
from vinograph.schedulers.euler import VESampler
from vinograph.schedulers.sampler import PREDICTIONS, Array, SamplingPlan, StepInput, StepOutput, StepRequest, setting

_PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class _Begun:
    """A step whose first evaluation is done: its start, and what that evaluation gave."""

    sample: Array
    value: Array


@dataclass(frozen=True)
class _SecondOrderSampler(VESampler):
    """What these samplers share: the plan, and which part of a step an evaluation is."""

    beta_start: float = setting(0.00085, least=0)
    beta_end: float = setting(0.012, least=0)
    prediction_type: str = setting("epsilon", *_PREDICTIONS)

    order: ClassVar[int] = 2

    def _plan(self, request: StepRequest) -> SamplingPlan:
        timesteps, sigmas = self._spaced(request)
        levels = np.append(sigmas, 0.0).astype(np.float32)
        second = self._second_timesteps(timesteps, sigmas)
        interleaved = np.concatenate([timesteps[:1], np.stack([second, timesteps[1:]], axis=1).reshape(-1)])
        doubled = np.concatenate([levels[:1], np.repeat(levels[1:-1], 2), levels[-1:]])
        return self._sampling_plan(interleaved, doubled, request.num_inference_steps)

    def _second_timesteps(self, timesteps: NDArray[Any], sigmas: NDArray[Any]) -> NDArray[Any]:
        """The timestep of each second evaluation, for those of the steps and their σ in double precision."""
        del timesteps
        middles = np.array([self._middle(*pair) for pair in pairwise(sigmas.astype(np.float32))])
        return noise_schedule.sigma_to_t(middles, np.log(self.training_sigmas))

    def _middle(self, sigma: np.float32, next_sigma: np.float32) -> np.float32:
        """σ of the second evaluation."""
        return _log_middle(sigma, next_sigma)

    def scale_model_input(self, plan: SamplingPlan, index: int, sample: Array) -> Array:
        """The sample at a deviation of one: x / √(σ² + 1), at the evaluation's own σ."""
        sigma = self._middle(plan.sigmas[index - 1], plan.sigmas[index]) if index % 2 else plan.sigmas[index]
        return np.asarray(sample / np.sqrt(sigma**2 + 1), np.float32)

    def step(self, inputs: StepInput) -> StepOutput:
        """The first or the second half of a step."""
        sigmas, index = inputs.plan.sigmas, inputs.index
        if isinstance(inputs.state, _Begun):
            return self._end(inputs, inputs.state, sigmas[index - 1], sigmas[index])
        return self._begin(inputs, sigmas[index], sigmas[index + 1])

    @abstractmethod
    def _begin(self, inputs: StepInput, sigma: np.float32, next_sigma: np.float32) -> StepOutput: ...

    @abstractmethod
    def _end(self, inputs: StepInput, begun: _Begun, sigma: np.float32, next_sigma: np.float32) -> StepOutput: ...


def _log_middle(sigma: np.float32, next_sigma: np.float32) -> np.float32:
    """The middle of two σ in their logarithms; 0 where the second one is 0."""
    with np.errstate(divide="ignore"):
        return np.float32(np.exp((np.log(sigma) + np.log(next_sigma)) / 2))


def _split(sigma: np.float32, next_sigma: np.float32) -> tuple[np.float32, np.float32]:
    """σ down to which an ancestral step goes, and that of the noise that leads up to its end."""
    up = np.sqrt(next_sigma**2 * (sigma**2 - next_sigma**2) / sigma**2)
    # √(next_sigma² - up²), whose difference is all rounding in a long step.
    return np.float32(next_sigma**2 / sigma), np.float32(min(up, next_sigma))


@dataclass(frozen=True)
class HeunSampler(_SecondOrderSampler):
    """Heun's method (Karras et al., arXiv 2206.00364, algorithm 1 without fresh noise)."""

    prediction_type: str = setting("epsilon", *PREDICTIONS)
    clip_sample: bool = setting(False)
    clip_sample_range: float = setting(1.0, least=0)

    scheduler_class: ClassVar[str] = "HeunDiscreteScheduler"
    takes_timesteps: ClassVar[bool] = True

    def _second_timesteps(self, timesteps: NDArray[Any], sigmas: NDArray[Any]) -> NDArray[Any]:
        del sigmas
        return timesteps[1:]

    def _middle(self, sigma: np.float32, next_sigma: np.float32) -> np.float32:
        del sigma
        return next_sigma

    def _denoised(self, sample: Array, model_output: Array, sigma: np.float32) -> Array:
        denoised = super()._denoised(sample, model_output, sigma)
        if not self.clip_sample:
            return denoised
        return np.asarray(np.clip(denoised, -self.clip_sample_range, self.clip_sample_range), np.float32)

    def _begin(self, inputs: StepInput, sigma: np.float32, next_sigma: np.float32) -> StepOutput:
        """Euler's step, after which the second evaluation is made."""
        denoised = self._denoised(inputs.sample, inputs.model_output, sigma)
        derivative = (inputs.sample - denoised) / sigma
        return StepOutput(
            inputs.sample + derivative * (next_sigma - sigma), denoised, _Begun(inputs.sample, derivative)
        )

    def _end(self, inputs: StepInput, begun: _Begun, sigma: np.float32, next_sigma: np.float32) -> StepOutput:
        """The step again, with the mean of both derivatives."""
        denoised = self._denoised(inputs.sample, inputs.model_output, next_sigma)
        derivative = np.asarray((begun.value + (inputs.sample - denoised) / next_sigma) / 2, np.float32)
        return StepOutput(begun.sample + derivative * (next_sigma - sigma), denoised)


@dataclass(frozen=True)
class KDPM2Sampler(_SecondOrderSampler):
    """DPM-Solver-2 (Lu et al., arXiv 2206.00927) in k-diffusion's form: the midpoint method in log σ."""

    scheduler_class: ClassVar[str] = "KDPM2DiscreteScheduler"
    rounds_karras: ClassVar[bool] = True

    def _begin(self, inputs: StepInput, sigma: np.float32, next_sigma: np.float32) -> StepOutput:
        """Euler's step to the middle."""
        denoised = self._denoised(inputs.sample, inputs.model_output, sigma)
        derivative = (inputs.sample - denoised) / sigma
        middle = self._middle(sigma, next_sigma)
        return StepOutput(inputs.sample + derivative * (middle - sigma), denoised, _Begun(inputs.sample, derivative))

    def _end(self, inputs: StepInput, begun: _Begun, sigma: np.float32, next_sigma: np.float32) -> StepOutput:
        """The whole step, with the middle's derivative."""
        middle = self._middle(sigma, next_sigma)
        denoised = self._denoised(inputs.sample, inputs.model_output, middle)
        derivative = (inputs.sample - denoised) / middle
        return StepOutput(begun.sample + derivative * (next_sigma - sigma), denoised)


@dataclass(frozen=True)
class KDPM2AncestralSampler(KDPM2Sampler):
    """DPM-Solver-2 to a σ below the step's end, and fresh noise up to it."""

    scheduler_class: ClassVar[str] = "KDPM2AncestralDiscreteScheduler"

    def _middle(self, sigma: np.float32, next_sigma: np.float32) -> np.float32:
        """The middle of σ and σ'² / σ in their logarithms, which is σ' itself."""
        del sigma
        return next_sigma

    def _end(self, inputs: StepInput, begun: _Begun, sigma: np.float32, next_sigma: np.float32) -> StepOutput:
        """The step to below its end, with the middle's derivative, and noise."""
        middle = self._middle(sigma, next_sigma)
        down, up = _split(sigma, next_sigma)
        denoised = self._denoised(inputs.sample, inputs.model_output, middle)
        derivative = (inputs.sample - denoised) / middle
        sample = begun.sample + derivative * (down - sigma)
        return StepOutput(sample + inputs.draw_noise(sample.shape) * up, denoised)


@dataclass(frozen=True)
class DPMSolverSDESampler(_SecondOrderSampler):
    """k-diffusion's DPM++ SDE: DPM-Solver++ of second order for the stochastic equation.

    The noise of a step's two halves is one path of a Brownian motion over σ, as in diffusers and
    k-diffusion. They draw that path by the package torchsde, from a seed of its own that diffusers'
    pipelines leave to chance. Here the run's noise source draws its two pieces, one after the
    other. So pictures have the same distribution, and are the same for a seed here; they are not
    those of other systems.
    """

    scheduler_class: ClassVar[str] = "DPMSolverSDEScheduler"

    def _second_timesteps(self, timesteps: NDArray[Any], sigmas: NDArray[Any]) -> NDArray[Any]:
        del timesteps
        log_sigmas = np.log(np.asarray(sigmas, np.float64))
        middles = np.exp(log_sigmas[:-1] + np.diff(log_sigmas) / 2)
        return noise_schedule.sigma_to_t(middles, np.log(self.training_sigmas))

    def _begin(self, inputs: StepInput, sigma: np.float32, next_sigma: np.float32) -> StepOutput:
        """The ancestral step to the middle; the last step, to 0, goes all the way to x₀."""
        denoised = self._denoised(inputs.sample, inputs.model_output, sigma)
        if next_sigma == 0:
            derivative = (inputs.sample - denoised) / sigma
            return StepOutput(inputs.sample + derivative * (next_sigma - sigma), denoised)
        noise = inputs.draw_noise(inputs.sample.shape)
        sample = _ancestral(inputs.sample, denoised, sigma, self._middle(sigma, next_sigma), noise)
        return StepOutput(sample, denoised, _Begun(inputs.sample, noise))

    def _end(self, inputs: StepInput, begun: _Begun, sigma: np.float32, next_sigma: np.float32) -> StepOutput:
        """The whole step, with the middle's x₀, and the noise of both halves."""
        middle = self._middle(sigma, next_sigma)
        denoised = self._denoised(inputs.sample, inputs.model_output, middle)
        later = inputs.draw_noise(begun.sample.shape)
        share = np.float32((sigma - middle) / (sigma - next_sigma))
        noise = np.sqrt(share) * begun.value + np.sqrt(1 - share) * later
        return StepOutput(_ancestral(begun.sample, denoised, sigma, next_sigma, noise), denoised)


def _ancestral(sample: Array, denoised: Array, sigma: np.float32, next_sigma: np.float32, noise: Array) -> Array:
    """From ``sigma`` to below ``next_sigma`` in the direction of x₀, and up to it by ``noise``."""
    down, up = _split(sigma, next_sigma)
    ratio = down / sigma
    return np.asarray(ratio * sample + (1 - ratio) * denoised + up * noise, np.float32)
