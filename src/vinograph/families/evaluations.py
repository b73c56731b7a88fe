"""Which evaluations of a denoiser are made, and what stands in for the others.

*Guidance in a limited interval* (Kynkäänniemi et al., arXiv 2404.07724) leaves guidance out where
it does little or harm. The paper's interval is one of noise levels; here it is one of the steps,
which the noise levels follow.

*Extrapolated steps* are after TaylorSeer (Liu et al., arXiv 2503.06923), which extrapolates the
features inside of a network from earlier steps. Here the network's output is extrapolated, so that
the graph stays as it is. The paper's coefficients are finite differences as if derivatives; here
they are those of the polynomial through the last outputs, which also fits uneven steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vinograph.errors import RequestError
from vinograph.families.contract import Array, DenoisingStage, Output
from vinograph.families.evaluation_request import EXTRAPOLATION, GUIDANCE_INTERVAL, EvaluationRequest

_WARM_UP = 3  # steps at the start, where outputs change most; as in TaylorSeer's published code
_DIGITS = 9  # 0.7 of 10 steps are 7, not the 8 that rounding up 7.000000000000001 would give


@dataclass(frozen=True)
class StepSpan:
    """The evaluations ``begin`` up to ``end`` that a run does, of those of ``total`` steps.

    The sampler asks for ``per_step`` evaluations in one step.
    """

    begin: int
    end: int
    total: int
    per_step: int = 1


@dataclass(frozen=True)
class EvaluationPlan:
    """How the denoiser's output comes about each time that the sampler asks for it.

    Attributes:
        guided: whether guidance is on, which doubles the rows of the batch.
        evaluated: whether the denoiser is evaluated; else its output is extrapolated.
        order: the order of the extrapolation.
    """

    guided: tuple[bool, ...]
    evaluated: tuple[bool, ...]
    order: int = 1

    @property
    def always_guided(self) -> bool:
        """Whether guidance is on for every output.

        Else a guided run computes each half on its own also where guidance is on: a graph is compiled
        for one number of rows, and a second one would take as much memory again.
        """
        return all(self.guided)

    @property
    def rows(self) -> int:
        """Rows that the denoiser computes for one picture, a measure of its work."""
        return sum(1 + guided for guided, evaluated in zip(self.guided, self.evaluated, strict=True) if evaluated)


def note_no_guidance(request: EvaluationRequest, out: Output) -> None:
    """Warn that the guidance interval, if there is one, was ignored, since nothing is guided."""
    if request.guidance_interval is not None:
        out.warnings.append("guidance_interval was ignored: it takes a guidance scale above 1")


def plan_evaluations(request: EvaluationRequest, span: StepSpan, *, guided: bool) -> EvaluationPlan:
    """Plan the evaluations of a stage that guides all of its steps where it is ``guided``.

    Raises:
        RequestError: no step lies in the guidance interval.
    """
    steps = [index // span.per_step for index in range(span.begin, span.end)]
    return EvaluationPlan(_guided(request, steps, span.total, guided), (True,) * len(steps))


def plan_extrapolation(
    plan: EvaluationPlan, request: EvaluationRequest, span: StepSpan, scheduler: str, out: Output
) -> EvaluationPlan:
    """The ``plan`` without the evaluations that the request extrapolates; ``scheduler`` is its name.

    The first three steps and the last are always evaluated, and so many after guidance begins
    that the polynomial has the points that it needs.

    Raises:
        RequestError: the sampler asks for more than one output in a step.
    """
    interval, order = request.extrapolation_interval or 1, request.extrapolation_order or 1
    if interval == 1:
        return plan
    if span.per_step > 1:
        raise RequestError(
            f"extrapolation_interval is {interval}, and the scheduler {scheduler} evaluates the model more than once "
            "in a step, which leaves nothing to extrapolate from; give another scheduler, such as "
            "dpm++ 2m, or neither extrapolation_interval nor speed"
        )
    evaluated, known = list[bool](), list[int]()
    for index, guided in enumerate(plan.guided):
        if guided and index and not plan.guided[index - 1]:
            known = []  # nothing is known yet of the output without the text
        due = index < _WARM_UP or len(known) <= order or index - known[-1] >= interval
        evaluated.append(due or index == len(plan.guided) - 1)
        known += [index] if evaluated[-1] else []
    if all(evaluated):
        out.warnings.append(f"extrapolation_interval was ignored: {len(evaluated)} steps are too few")
    return replace(plan, evaluated=tuple(evaluated), order=order)


def _guided(request: EvaluationRequest, steps: Sequence[int], total: int, guided: bool) -> tuple[bool, ...]:
    """Whether each of the ``steps`` is guided."""
    if request.guidance_interval is None or not guided:
        return (guided,) * len(steps)
    start, end = request.guidance_interval
    first, last = (math.ceil(round(each * total, _DIGITS)) for each in (start, end))
    if first == last:
        raise RequestError(
            f"guidance_interval is {start:g},{end:g}, in which none of the {total} steps begins; give a wider one, or "
            "a guidance scale of 0 for no guidance at all"
        )
    return tuple(first <= step < last for step in steps)


def rows_of(stage: DenoisingStage, values: Mapping[str, Any]) -> int:
    """Rows that a stage's denoiser computes for one picture drawn with the arguments ``values``."""
    names = (*GUIDANCE_INTERVAL, *EXTRAPOLATION)
    request = EvaluationRequest(**{name: values[name] for name in names if name in values})
    steps, guided = int(values[stage.steps]), (values.get(stage.guidance_scale) or 0.0) > 1
    span = StepSpan(0, steps, steps)
    plan = plan_evaluations(request, span, guided=guided)
    return (plan_extrapolation(plan, request, span, "", Output()) if stage.extrapolated else plan).rows


def extrapolate(known: Sequence[tuple[int, Array]], index: int) -> Array:
    """The value at step ``index`` of the polynomial through the ``known`` values at their steps.

    It is exact for values that change linearly, of two points, or quadratically, of three.
    """
    value = np.zeros_like(known[0][1])
    for place, (step, array) in enumerate(known):
        others = [each for other, (each, _) in enumerate(known) if other != place]
        weight = math.prod((index - each) / (step - each) for each in others)
        value += np.float32(weight) * array
    return value


Evaluate = Callable[[bool], Array]
"""Evaluates the denoiser, with guidance (the rows of both halves) or without."""


@dataclass
class Outputs:
    """The denoiser's outputs of a run, evaluated or extrapolated as ``plan`` says.

    ``with_text`` takes from a guided output the rows of the prompt, which go on where guidance ends.
    """

    plan: EvaluationPlan
    with_text: Callable[[Array], Array]
    _known: list[tuple[int, Array]] = field(default_factory=list)

    def at(self, index: int, evaluate: Evaluate) -> Array:
        """The output for evaluation ``index``, counted from the first that is done."""
        guided, before = self.plan.guided[index], index > 0 and self.plan.guided[index - 1]
        if guided and not before:
            self._known = []
        elif before and not guided:
            self._known = [(step, self.with_text(array)) for step, array in self._known]
        if not self.plan.evaluated[index]:
            return extrapolate(self._known, index)
        output = evaluate(guided)
        if not all(self.plan.evaluated):
            self._known = [*self._known, (index, output)][-1 - self.plan.order :]
        return output
