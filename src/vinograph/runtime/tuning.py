"""Which of OpenVINO's settings is the fastest for a component with weights in few bits: measured, never assumed.

A linear layer with such weights rounds its activations to int8 as it goes, in groups of so many values that share a
scale, if it is told to ("dynamic quantization"). What group is the fastest, and in which precision the rest is best
computed, depends on the processor, the layers and the size of the picture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vinograph.runtime.cache import Cache, Description

Shapes = Mapping[str, tuple[int, ...]]

GROUPS = (64, 128, 256, 32, 0)
NOISE = 0.03  # what is faster by less is not known to be
SHORTEST = 0.01  # seconds of a call below which measuring isn't worth its while
NEAR = 4  # inputs of up to so many times the values are computed in the same setting
MEASURED = "it was measured once which settings are the fastest"  # how a drawing's warning of it begins
_RUNS = 3
_AGAIN = 2
_MOST_RUNS = 15
_MOMENT = 0.3
_CLEARLY_SLOWER = 1.5

_log = logging.getLogger("vinograph")


@dataclass(frozen=True)
class Setting:
    """How a component computes: ``group`` values share a scale (0: activations stay as they are), in ``precision``.

    None is what the device does by itself.
    """

    group: int | None = None
    precision: str | None = None

    def __str__(self) -> str:
        groups = {None: "groups as by default", 0: "activations not rounded"}.get(self.group, f"groups of {self.group}")
        return f"{groups}, {self.precision}" if self.precision else groups

    def record(self) -> dict[str, Any]:
        """The setting as JSON."""
        return {"group": self.group, "precision": self.precision}

    @classmethod
    def read(cls, record: Any, precisions: tuple[str, ...]) -> Setting | None:
        """The setting that a record holds; None where it is none, or not one that is ever tried."""
        if not isinstance(record, dict):
            return None
        group, precision = record.get("group"), record.get("precision")
        known = group is None or (type(group) is int and group in GROUPS)
        return cls(group, precision) if known and (precision is None or precision in precisions) else None


DEFAULT = Setting()


@dataclass(frozen=True)
class TuningResult:
    """The fastest setting, and the seconds that a call took in each that was tried to the end."""

    setting: Setting
    seconds: dict[Setting, float]
    took: float


Timed = Callable[[Setting, float], float | None]
"""The seconds of a call in a setting, told those of the fastest so far; None where the setting doesn't work."""


def fastest(timed: Timed, groups: tuple[int, ...], precisions: tuple[str, ...]) -> TuningResult:
    """Try the default, then each group, then the best of them in each other precision.

    One that is not faster than the default by more than :data:`NOISE` is not chosen, and one that is has to be so
    again: other work on the machine comes and goes. Calls shorter than :data:`SHORTEST` stay with the default.
    """
    begin = time.perf_counter()
    seconds: dict[Setting, float] = {}

    def attempt(setting: Setting) -> float | None:
        taken = timed(setting, min(seconds.values(), default=math.inf))
        if taken is not None:
            seconds[setting] = min(taken, seconds.get(setting, math.inf))
        return taken

    if (attempt(DEFAULT) or math.inf) < SHORTEST:
        return TuningResult(DEFAULT, seconds, time.perf_counter() - begin)
    for group in groups:
        attempt(Setting(group))
    group_found = _best(seconds).group
    for precision in precisions:
        attempt(Setting(group_found, precision))
    best = _best(seconds)
    if best != DEFAULT and DEFAULT in seconds:
        again = {setting: attempt(setting) or math.inf for setting in (DEFAULT, best)}
        best = best if best == _best(again) == _best({each: seconds[each] for each in again}) else DEFAULT
    return TuningResult(best, seconds, time.perf_counter() - begin)


def _best(seconds: dict[Setting, float]) -> Setting:
    best = min(seconds, key=lambda setting: seconds[setting], default=DEFAULT)
    if DEFAULT in seconds and seconds[best] > seconds[DEFAULT] * (1 - NOISE):
        return DEFAULT
    return best


def seconds_of(run: Callable[[], Any], best: float) -> float:
    """The least of some runs after one to warm up: a few, or as many as fill a moment. What runs beside only adds.

    Where the first is clearly slower than ``best``, it is enough.
    """
    run()
    taken: list[float] = []
    while len(taken) < _RUNS or (sum(taken) < _MOMENT and len(taken) < _MOST_RUNS):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
        if taken[0] > _CLEARLY_SLOWER * best:
            break
    return min(taken)


def cost(compiling: float, call: float, settings: int) -> float:
    """The seconds that it takes to try so many settings, two of them twice."""
    return (settings + _AGAIN) * (compiling + call + max(_RUNS * call, min(_MOST_RUNS * call, _MOMENT)))


@dataclass(frozen=True)
class Machine:
    """What measured settings are good for: ``told`` names the processor, its cores and OpenVINO's version.

    ``precision`` and ``group`` are what OpenVINO takes by itself.
    """

    told: tuple[str, ...]
    precision: str
    group: int

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups that are worth trying: all but OpenVINO's own."""
        return tuple(group for group in GROUPS if group != self.group)

    def others(self, precision: str) -> tuple[str, ...]:
        """The precisions that are tried beside the one asked for: f32, where "auto" computes in another."""
        return ("f32",) if precision == "auto" and self.precision != "f32" else ()


@dataclass(frozen=True)
class CacheKey:
    """What something is remembered of a component by, between processes.

    ``contents`` is a hash of its files. ``low_bit_weights`` says that they hold int8 or int4, so that settings matter.
    """

    model: str
    component: str
    contents: str
    low_bit_weights: bool
    cache: Cache

    def description(self, shapes: Shapes) -> Description:
        """The component at a size, for people."""
        told = (f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
        return Description(self.model, self.component, ", ".join(told))


def key(*what: Any) -> str:
    """A hash of JSON."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _component_key(cache_key: CacheKey, precision: str, machine: Machine) -> str:
    """What is the same of all sizes of a component."""
    return key(cache_key.contents, precision, machine.told)


def settings_key(cache_key: CacheKey, shapes: Shapes, precision: str, machine: Machine) -> str:
    """What the fastest setting is remembered by."""
    return key(cache_key.contents, sorted(shapes.items()), precision, machine.told)


def _size(shapes: Shapes) -> dict[str, int]:
    """How many values each input has."""
    return {name: math.prod(shape) for name, shape in shapes.items()}


def _apart(one: Mapping[str, int], other: Any) -> float:
    """By what factor the input differs of which the number of values differs most."""
    if not isinstance(other, dict) or one.keys() != other.keys():
        return math.inf
    if not all(type(each) is int and each > 0 for each in (*one.values(), *other.values())):
        return math.inf
    return max((max(one[name] / other[name], other[name] / one[name]) for name in one), default=1.0)


def remember(cache_key: CacheKey, shapes: Shapes, precision: str, machine: Machine, result: TuningResult) -> Setting:
    """Keep what was measured. What another process has measured meanwhile stays, and is returned in its place."""

    def change(known: dict[str, Any]) -> dict[str, Any]:
        if _chosen(known, precision, machine) is not None:
            return known
        seconds = {str(setting): round(taken, 5) for setting, taken in result.seconds.items()}
        told = {"chosen": result.setting.record(), "setting": str(result.setting), "seconds": seconds}
        near = {"of": _component_key(cache_key, precision, machine), "size": _size(shapes)}
        return {**vars(cache_key.description(shapes)), **near, **told}

    kept = cache_key.cache.remember(settings_key(cache_key, shapes, precision, machine), change)
    return _chosen(kept, precision, machine) or result.setting


class Tuner:
    """The setting of one component for each size: known, measured when it is due, else OpenVINO's own.

    It is known where it was measured at this size or at one near it: one whose inputs have at most :data:`NEAR` times
    as many values each, and no fewer than that part of them. It is due at the first call of a drawing, once calls in
    OpenVINO's own have taken as long as measuring does, in all processes together: what is called seldom is never
    measured for longer than it has run. A drawing keeps to the setting of its first call, so that one seed gives one
    picture.
    """

    def __init__(self, cache_key: CacheKey, precision: str, machine: Machine) -> None:
        self._cache_key = cache_key
        self._precision = precision
        self._machine = machine
        self._settled: dict[Any, Setting] = {}
        self._unmeasured: set[Any] = set()
        self._unrecorded: dict[Any, tuple[float, float]] = {}

    def begin_drawing(self) -> None:
        """Forget what the last drawing kept to."""
        self._settled.clear()
        self._unmeasured.clear()

    def end_drawing(self) -> None:
        """Record how long calls took that no setting was measured for."""
        for shapes, (spent, cost_) in self._unrecorded.items():
            description = vars(self._cache_key.description(dict(shapes)))

            def change(
                known: dict[str, Any],
                description: dict[str, Any] = description,
                spent: float = spent,
                cost_: float = cost_,
            ) -> dict[str, Any]:
                if _chosen(known, self._precision, self._machine) is not None:
                    return known
                return {**description, "spent": _number(known, "spent") + spent, "cost": cost_}

            self._cache_key.cache.remember(self._key(dict(shapes)), change)
        self._unrecorded.clear()

    def setting(self, shapes: Shapes) -> Setting:
        """What the drawing keeps to; before its first call, what that would find without measuring."""
        settled = self._settled.get(_sorted(shapes))
        return settled or self._known(shapes, self._cache_key.cache.settings()) or DEFAULT

    def settle(self, shapes: Shapes, measure: Callable[[], TuningResult]) -> None:
        """Decide for a setting, if this is the drawing's first call."""
        if _sorted(shapes) not in self._settled:
            self._settled[_sorted(shapes)] = self._find(shapes, measure)

    def note_time(self, shapes: Shapes, seconds: float, compiling: float) -> None:
        """Add up the seconds of calls for which nothing was measured. It took ``compiling`` to compile for them."""
        size = _sorted(shapes)
        if size not in self._unmeasured or seconds < SHORTEST:
            return
        spent, _ = self._unrecorded.get(size, (0.0, 0.0))
        tried = 1 + len(self._machine.groups) + len(self._machine.others(self._precision))
        self._unrecorded[size] = (spent + seconds, cost(compiling, seconds, tried))

    def _find(self, shapes: Shapes, measure: Callable[[], TuningResult]) -> Setting:
        records = self._cache_key.cache.settings()
        known = self._known(shapes, records)
        if known is not None:
            return known
        record = records.get(self._key(shapes), {})
        spent, takes = _number(record, "spent"), _number(record, "cost")
        if not 0 < takes <= spent:
            self._unmeasured.add(_sorted(shapes))
            return DEFAULT
        name = self._cache_key.component
        _log.warning("measuring once which settings are the fastest for %s: about %.0f s", name, math.ceil(takes))
        result = measure()
        self._cache_key.cache.add_warning(f"{MEASURED} for {name}, which took {result.took:.1f} s: {result.setting}")
        return remember(self._cache_key, shapes, self._precision, self._machine, result)

    def _known(self, shapes: Shapes, records: Mapping[str, Mapping[str, Any]]) -> Setting | None:
        """What was measured at this size, or at the nearest one that is near."""
        here = _chosen(records.get(self._key(shapes), {}), self._precision, self._machine)
        if here is not None:
            return here
        of = _component_key(self._cache_key, self._precision, self._machine)
        near = [
            (apart, chosen)
            for record in records.values()
            if record.get("of") == of
            and (chosen := _chosen(record, self._precision, self._machine))
            and (apart := _apart(_size(shapes), record.get("size"))) <= NEAR
        ]
        return min(near, key=lambda each: each[0])[1] if near else None

    def _key(self, shapes: Shapes) -> str:
        return settings_key(self._cache_key, shapes, self._precision, self._machine)


def _sorted(shapes: Shapes) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted(shapes.items()))


def _chosen(record: Mapping[str, Any], precision: str, machine: Machine) -> Setting | None:
    return Setting.read(record.get("chosen"), machine.others(precision))


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0
