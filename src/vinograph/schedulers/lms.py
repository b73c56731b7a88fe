"""Linear multistep sampling over σ, as k-diffusion and diffusers do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from vinograph.schedulers.euler import VESampler
from vinograph.schedulers.sampler import SamplingPlan, StepInput, StepOutput, StepRequest

_ORDER = 4


@dataclass(frozen=True)
class LMSSampler(VESampler):
    """Adams and Bashforth's method of order 4 with uneven steps.

    The derivative dx/dσ is the polynomial in σ through those of the last four steps, and is
    integrated exactly.
    """

    scheduler_class: ClassVar[str] = "LMSDiscreteScheduler"

    def _plan(self, request: StepRequest) -> SamplingPlan:
        timesteps, sigmas = self._spaced(request)
        return self._sampling_plan(timesteps, np.append(sigmas, 0.0), request.num_inference_steps)

    def step(self, inputs: StepInput) -> StepOutput:
        """x + Σ cⱼ dⱼ, where cⱼ integrates the j-th Lagrange polynomial over the step.

        As in diffusers, a run that begins at a later step has the order that it would have had
        there, and the derivatives that are missing count as 0.
        """
        sigmas, index, sample = inputs.plan.sigmas, inputs.index, inputs.sample
        denoised = self._denoised(sample, inputs.model_output, sigmas[index])
        derivatives = ((sample - denoised) / sigmas[index], *(inputs.state or ()))[:_ORDER]
        nodes = sigmas[max(index + 1 - _ORDER, 0) : index + 1][::-1].astype(np.float64)
        weights = [_weight(nodes, place, float(sigmas[index + 1])) for place in range(len(nodes))]
        change = sum(np.float32(weight) * each for weight, each in zip(weights, derivatives, strict=False))
        return StepOutput(np.asarray(sample + change, np.float32), denoised, derivatives)


def _weight(nodes: NDArray[Any], place: int, end: float) -> float:
    """Integral of the Lagrange polynomial that is 1 at ``nodes[place]``, from the first node to ``end``."""
    others = np.delete(nodes, place)
    polynomial = Polynomial.fromroots(others) if len(others) else Polynomial([1.0])
    integral = polynomial.integ(lbnd=nodes[0])
    return float(integral(end) / np.prod(nodes[place] - others))
