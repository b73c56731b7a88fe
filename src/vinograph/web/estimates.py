"""The seconds that a request will take, learned from the drawings of this server."""

from __future__ import annotations

import dataclasses
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vinograph.families.contract import Step
from vinograph.web.jobs import DrawRequest, JobStatus
from vinograph.web.model_pool import MAX_LOADED

MOST_UNCERTAIN = 2.0
"""There is no estimate where the largest time in question is more than so many times the least."""

_RECENT = 5  # drawings with the same settings, of which the median counts
_KEPT = 200  # drawings of a server
_FARTHEST = 4.0  # times the pixels, or a fourth of them: beyond that nothing is concluded
_TEXTS = ("prompt", "negative_prompt")
_IRRELEVANT = (*_TEXTS, "seed", "width", "height", "num_images_per_prompt")


@dataclass(frozen=True)
class Cost:
    """What the time of a request depends on.

    ``pixels`` are those of all its pictures, and ``steps`` are its arguments for numbers of steps.
    Between requests that differ in ``other``, nothing is concluded.
    """

    model: str
    size: tuple[int, int, int]
    steps: Mapping[str, int]
    other: Hashable

    @property
    def pixels(self) -> int:
        """The pixels of all pictures of the request."""
        return math.prod(self.size)

    @property
    def prepared_for(self) -> Hashable:
        """For what a model is prepared before its first step: another size takes time for that again."""
        return self.size, self.other


def cost_of(draw_request: DrawRequest, defaults: Mapping[str, Any]) -> Cost:
    """What the time of a request depends on; ``defaults`` are those of its call."""
    given = {**defaults, **draw_request.arguments}
    steps = {name: value for name, value in given.items() if name.endswith("_steps") and isinstance(value, int)}
    other = []
    for name, value in sorted(given.items()):
        if name in _IRRELEVANT or name in steps or value is None:
            continue
        if name.endswith("guidance_scale"):  # above 1, every step computes twice
            value = (value or 0) > 1
        other.append((name, "a file" if name in draw_request.input_files else repr(value)))
    size = (int(given.get("width") or 0), int(given.get("height") or 0), int(given.get("num_images_per_prompt") or 1))
    adapters = tuple(sorted(draw_request.adapters.items()))
    return Cost(draw_request.model, size, steps, (draw_request.call, tuple(other), adapters))


@dataclass(frozen=True)
class StageTime:
    """The ``seconds`` of a stage and its number of ``steps``.

    ``per_step`` is the pace after the first step, None where there was only one.
    """

    seconds: float
    steps: int
    per_step: float | None


@dataclass(frozen=True)
class Estimate:
    """The expected ``seconds``; ``prepares`` says that the model is first prepared for the size."""

    seconds: float
    prepares: bool


@dataclass(frozen=True)
class _Record:
    """A drawing that was made: its request without the prompt, and the times of its stages."""

    draw_request: DrawRequest
    stages: Sequence[StageTime]


@dataclass(frozen=True)
class _Drawing:
    """A drawing of the model in question.

    ``prepared`` says whether the model was ready for it, so that its times are of drawing alone.
    """

    cost: Cost
    stages: Sequence[StageTime]
    prepared: bool


@dataclass
class _StageWatch:
    first: tuple[int, float]
    last: tuple[int, float]
    total: int


@dataclass
class _Watch:
    """Measures the stages of a job's requests from its statuses."""

    draw_requests: Sequence[DrawRequest]
    done: Callable[[DrawRequest, Sequence[StageTime]], None]
    stages: dict[str, _StageWatch] = field(default_factory=dict)
    step: Step | None = None
    results: int = 0

    def __call__(self, status: JobStatus) -> None:
        before, self.step = self.step, status.step
        if status.step is not None and status.step is not before:
            now = status.step.index, time.perf_counter()
            watched = self.stages.setdefault(status.step.stage, _StageWatch(now, now, status.step.total))
            watched.last = now if now[0] > watched.last[0] else watched.last
        if len(status.results) > self.results:
            draw_request, result = self.draw_requests[self.results], status.results[-1]
            self.results = len(status.results)
            self.done(draw_request, [self._time(name, seconds) for name, seconds in result.timings.items()])
            self.stages = {}

    def _time(self, name: str, seconds: float) -> StageTime:
        watched = self.stages.get(name)
        if watched is None:
            return StageTime(seconds, 1, None)
        steps = watched.last[0] - watched.first[0]
        pace = (watched.last[1] - watched.first[1]) / steps if steps else None
        return StageTime(seconds, watched.total, pace)


class Estimates:
    """The times of a server's drawings, and what they say of the next one. Any thread may call it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._records: deque[_Record] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def watch(self, draw_requests: Sequence[DrawRequest]) -> Callable[[JobStatus], None]:
        """What has to be called with each status of a job of these requests, to learn from them."""
        return _Watch(draw_requests, self.record)

    def record(self, draw_request: DrawRequest, stages: Sequence[StageTime]) -> None:
        """Learn from a drawing that was made."""
        arguments = {name: value for name, value in draw_request.arguments.items() if name not in _TEXTS}
        with self._lock:
            self._records.append(_Record(dataclasses.replace(draw_request, arguments=arguments), stages))

    def of(self, draw_request: DrawRequest, defaults: Mapping[str, Any]) -> Estimate | None:
        """The expected time of a request; None where what is known doesn't say it within a factor of two.

        Args:
            draw_request: the request; its prompt doesn't matter.
            defaults: the defaults of its call.
        """
        target = cost_of(draw_request, defaults)
        drawings, ready_for = self._drawings(target.model, defaults)
        comparable: dict[Any, list[_Drawing]] = {}
        for each in drawings:
            if each.cost.other == target.other and _distance(each.cost, target) is not None:
                key = (not each.prepared, each.cost.size, tuple(each.cost.steps.items()))
                comparable.setdefault(key, []).append(each)
        by_distance = sorted(comparable.values(), key=lambda group: _distance(group[0].cost, target) or 0.0)
        for group in by_distance:  # of the same distance, those that were prepared come first
            bounds = [_bounds(each, target) for each in group[-_RECENT:]]
            low, high = (statistics.median(side) for side in zip(*bounds, strict=True))
            if 0 < high <= MOST_UNCERTAIN * low:
                return Estimate(math.sqrt(low * high), ready_for != target.prepared_for)
        return None

    def _drawings(self, model: str, defaults: Mapping[str, Any]) -> tuple[list[_Drawing], Hashable]:
        """The model's drawings, and what the model is prepared for now."""
        loaded: list[str] = []
        drawings: list[_Drawing] = []
        ready_for: Hashable = None
        with self._lock:
            records = list(self._records)
        for record in records:
            drawn = record.draw_request.model
            loaded = [*(each for each in loaded if each != drawn), drawn][-MAX_LOADED:]
            if drawn == model:
                cost = cost_of(record.draw_request, defaults)
                drawings.append(_Drawing(cost, record.stages, cost.prepared_for == ready_for))
                ready_for = cost.prepared_for
            elif model not in loaded:
                ready_for = None
        return sorted(drawings, key=lambda each: not each.prepared), ready_for


def _distance(known: Cost, target: Cost) -> float | None:
    """How far apart two costs are; None where nothing can be concluded from the one for the other."""
    if not known.pixels or not target.pixels or known.steps.keys() != target.steps.keys():
        return None
    pixels = abs(math.log(target.pixels / known.pixels))
    if pixels > math.log(_FARTHEST):
        return None
    changed = [abs(math.log(target.steps[name] / known.steps[name])) for name in known.steps if known.steps[name]]
    return pixels + sum(changed) + 0.01 * (known.size != target.size)


def _bounds(drawing: _Drawing, target: Cost) -> tuple[float, float]:
    """The least and the most seconds that the target takes, as a drawing says."""
    bounds = [_stage_bounds(stage, drawing, target) for stage in drawing.stages]
    return sum(low for low, _ in bounds), sum(high for _, high in bounds)


def _stage_bounds(stage: StageTime, drawing: _Drawing, target: Cost) -> tuple[float, float]:
    """The least and the most seconds of a stage.

    A stage of many steps takes as long as its steps and pixels say. Of one with a single step
    nobody knows whether it does, and how much of its time was preparation.
    """
    known = drawing.cost
    pixels = {target.pixels / known.pixels}
    steps = _step_factors(stage, drawing, target)
    least = most = stage.seconds
    if stage.steps == 1:
        pixels, least = pixels | {1.0}, stage.seconds if drawing.prepared else 0.0
    elif not drawing.prepared and stage.per_step is not None:
        least = most = min(stage.per_step * stage.steps, stage.seconds)
    return least * min(steps) * min(pixels), most * max(steps) * max(pixels)


def _step_factors(stage: StageTime, drawing: _Drawing, target: Cost) -> set[float]:
    """By what the number of a stage's steps may change from a drawing to the target."""
    known = drawing.cost.steps
    factors = {name: target.steps[name] / value for name, value in known.items() if value}
    own = {factors[name] for name, value in known.items() if value == stage.steps}
    if own:
        return own | {1.0} if stage.steps == 1 else own
    totals = {each.steps for each in drawing.stages}
    return {1.0} | {factors[name] for name, value in known.items() if value and value not in totals}
