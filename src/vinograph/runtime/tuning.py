"""Which of OpenVINO's settings is the fastest for low-bit weights: measured, never assumed.

A linear layer with such weights can round its activations to int8 as it goes ("dynamic
quantization"), in groups of values that share a scale. Which group size is the fastest, and which
precision for the rest, depends on the processor, the layers and the size of the picture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vinograph.errors import RequestError
from vinograph.runtime.cache import Cache, Description
from vinograph.values import shown

Shapes = Mapping[str, tuple[int, ...]]

GROUPS = (64, 128, 256, 32, 0)
MEASUREMENT_NOISE = 0.03  # a setting counts as faster if it saves more than this share of the time
SHORTEST_CALL = 0.01  # seconds: for shorter calls measuring isn't worth its while
NEAR_SIZES = 4  # inputs of up to so many times the values are computed in the same setting
_RUNS = 3  # timed calls in a setting, at least …
_MOST_RUNS = 15  # … and at most …
_ENOUGH_SECONDS = 0.3  # … when they have taken as long as this together
_CLEARLY_SLOWER = 1.5  # times the best: one call is enough to see that

_log = logging.getLogger("vinograph")


@dataclass(frozen=True)
class Setting:
    """How a component computes: the group size of dynamic quantization, and the precision.

    ``group`` activations share a scale. A group of 0 leaves the activations as they are. None is
    what the device does by itself.
    """

    group: int | None = None
    precision: str | None = None

    def __str__(self) -> str:
        groups = {None: "groups as by default", 0: "activations not rounded"}.get(self.group, f"groups of {self.group}")
        return f"{groups}, {self.precision}" if self.precision else groups

    def to_json(self) -> dict[str, Any]:
        """The setting as JSON."""
        return {"group": self.group, "precision": self.precision}

    @classmethod
    def from_json(cls, record: Any, precisions: tuple[str, ...]) -> Setting | None:
        """The setting of a record; None where it is damaged, or a setting that is never tried."""
        if not isinstance(record, dict):
            return None
        group, precision = record.get("group"), record.get("precision")
        known = group is None or (type(group) is int and group in GROUPS)
        return cls(group, precision) if known and (precision is None or precision in precisions) else None


DEFAULT = Setting()


@dataclass(frozen=True)
class KnownSetting:
    """A setting to compute in, and whether it was measured that it is the fastest."""

    setting: Setting = DEFAULT
    is_measured: bool = False

    def __str__(self) -> str:
        return f"{self.setting} ({'measured' if self.is_measured else 'not measured'})"


@dataclass(frozen=True)
class TuningResult:
    """The fastest setting, the seconds of a call in each, and the seconds that measuring took."""

    setting: Setting
    seconds: dict[Setting, float]
    measuring_seconds: float


TimeCall = Callable[[Setting, float], float | None]
"""From a setting and the least seconds so far to the seconds of a call; None if it fails."""


def find_fastest_setting(time_call: TimeCall, groups: tuple[int, ...], precisions: tuple[str, ...]) -> TuningResult:
    """Try the default, then each group size, then the best of them in each other precision.

    A setting has to be faster than the default by more than :data:`MEASUREMENT_NOISE`, and that
    twice, because other work on the machine comes and goes. Calls shorter than
    :data:`SHORTEST_CALL` stay with the default.
    """
    begin = time.perf_counter()
    seconds: dict[Setting, float] = {}

    def attempt(setting: Setting) -> float | None:
        taken = time_call(setting, min(seconds.values(), default=math.inf))
        if taken is not None:
            seconds[setting] = min(taken, seconds.get(setting, math.inf))
        return taken

    if (attempt(DEFAULT) or math.inf) < SHORTEST_CALL:
        return TuningResult(DEFAULT, seconds, time.perf_counter() - begin)
    for group in groups:
        attempt(Setting(group))
    group_found = _best_or_default(seconds).group
    for precision in precisions:
        attempt(Setting(group_found, precision))
    best = _best_or_default(seconds)
    if best != DEFAULT and DEFAULT in seconds:
        again = {setting: attempt(setting) or math.inf for setting in (DEFAULT, best)}
        best = (
            best
            if best == _best_or_default(again) == _best_or_default({each: seconds[each] for each in again})
            else DEFAULT
        )
    return TuningResult(best, seconds, time.perf_counter() - begin)


def _best_or_default(seconds: dict[Setting, float]) -> Setting:
    """The setting with the least seconds, if it is faster than the default by more than noise."""
    best = min(seconds, key=lambda setting: seconds[setting], default=DEFAULT)
    if DEFAULT in seconds and seconds[best] > seconds[DEFAULT] * (1 - MEASUREMENT_NOISE):
        return DEFAULT
    return best


def least_seconds(run: Callable[[], Any], best: float) -> float:
    """The least seconds of several runs, after one to warm up.

    It is the least because other work on the machine only adds. Where the first is clearly slower
    than ``best``, it is the only one.
    """
    run()
    taken: list[float] = []
    while len(taken) < _RUNS or (sum(taken) < _ENOUGH_SECONDS and len(taken) < _MOST_RUNS):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
        if taken[0] > _CLEARLY_SLOWER * best:
            break
    return min(taken)


@dataclass(frozen=True)
class Machine:
    """The machine that settings are measured on.

    Attributes:
        fingerprint: the processor, its capabilities, its cores and OpenVINO's version.
        precision, group: what OpenVINO computes in by itself.
    """

    fingerprint: tuple[str, ...]
    precision: str
    group: int

    @property
    def group_sizes_to_try(self) -> tuple[int, ...]:
        """The group sizes that are worth trying: all but OpenVINO's own."""
        return tuple(group for group in GROUPS if group != self.group)

    def precisions_to_try(self, precision: str) -> tuple[str, ...]:
        """Precisions to try for ``precision``: with "auto", f32 and OpenVINO's own, if that is another."""
        return ("f32", self.precision) if precision == "auto" and self.precision != "f32" else ()


@dataclass(frozen=True)
class CacheKey:
    """The key of a component in ``cache``, for its compiled models and settings.

    Attributes:
        model, component: names, for people.
        contents: a hash of the component's files, and of the adapters that change it.
        low_bit_weights: whether its weights are stored in int8 or int4, so that settings matter.
        plain_contents: a hash of the files alone; empty if that is ``contents``. Settings belong to
            these: adapters don't change what is fast.
    """

    model: str
    component: str
    contents: str
    low_bit_weights: bool
    cache: Cache
    plain_contents: str = ""

    def description(self, shapes: Shapes) -> Description:
        """The component at a size, for people."""
        sizes = (f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
        return Description(self.model, self.component, ", ".join(sizes))


def sha256_of_json(*parts: Any) -> str:
    """The SHA-256 of ``parts`` as JSON."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _component_key(cache_key: CacheKey, precision: str, machine: Machine) -> str:
    """The key that all sizes of a component have in common."""
    return sha256_of_json(cache_key.plain_contents or cache_key.contents, precision, machine.fingerprint)


def settings_key(cache_key: CacheKey, shapes: Shapes, precision: str, machine: Machine) -> str:
    """The key under which the fastest setting for inputs of these shapes is kept."""
    contents = cache_key.plain_contents or cache_key.contents
    return sha256_of_json(contents, sorted(shapes.items()), precision, machine.fingerprint)


def _value_counts(shapes: Shapes) -> dict[str, int]:
    """The number of values of each input."""
    return {name: math.prod(shape) for name, shape in shapes.items()}


def are_near(one: Shapes, other: Shapes) -> bool:
    """Whether what is measured at one size also serves the other."""
    return _size_ratio(_value_counts(one), _value_counts(other)) <= NEAR_SIZES


def _size_ratio(one: Mapping[str, int], other: Any) -> float:
    """The largest ratio of an input's values at two sizes; infinite where there is none."""
    if not isinstance(other, dict) or one.keys() != other.keys():
        return math.inf
    if not all(type(each) is int and each > 0 for each in (*one.values(), *other.values())):
        return math.inf
    return max((max(one[name] / other[name], other[name] / one[name]) for name in one), default=1.0)


def keep_first_result(
    cache_key: CacheKey, shapes: Shapes, precision: str, machine: Machine, result: TuningResult
) -> Setting:
    """Keep the setting that was measured, and return it.

    If another process has measured meanwhile, its setting stays and is returned instead.
    """

    def change(known: dict[str, Any]) -> dict[str, Any]:
        measured = _chosen(known, precision, machine) is not None
        return known if measured else _record(cache_key, shapes, precision, machine, result)

    kept = cache_key.cache.remember(settings_key(cache_key, shapes, precision, machine), change)
    return _chosen(kept, precision, machine) or result.setting


def keep_result(cache_key: CacheKey, shapes: Shapes, precision: str, machine: Machine, result: TuningResult) -> None:
    """Keep the setting that was measured, in place of one that was measured before."""
    record = _record(cache_key, shapes, precision, machine, result)
    cache_key.cache.remember(settings_key(cache_key, shapes, precision, machine), lambda _: record)


def _record(
    cache_key: CacheKey, shapes: Shapes, precision: str, machine: Machine, result: TuningResult
) -> dict[str, Any]:
    seconds = {str(setting): round(taken, 5) for setting, taken in result.seconds.items()}
    chosen = {"chosen": result.setting.to_json(), "setting": str(result.setting), "seconds": seconds}
    near = {"of": _component_key(cache_key, precision, machine), "size": _value_counts(shapes)}
    return {**vars(cache_key.description(shapes)), **near, **chosen}


class Measuring(Enum):
    """Whether a drawing measures settings: not at all, or at the sizes where none is known."""

    NEVER = "never"
    IF_UNKNOWN = "if unknown"

    @classmethod
    def of(cls, tune: bool) -> Measuring:
        """What a pipeline's argument ``tune`` stands for.

        Raises:
            RequestError: it is neither True nor False.
        """
        if not isinstance(tune, bool):
            raise RequestError(f"tune is {shown(tune)}; give True to measure settings that are not known yet, or False")
        return cls.IF_UNKNOWN if tune else cls.NEVER


class Tuner:
    """The setting of a component for each size: one that was measured, or OpenVINO's own.

    A setting is known if it was measured at this size or at a near one. Sizes are near if no input
    has more than :data:`NEAR_SIZES` times as many values in one as in the other.

    Nothing is measured unless ``measuring`` says so, and then at the first call of a drawing. A
    drawing keeps to the setting of its first call, so that one seed gives one picture.
    """

    def __init__(
        self, cache_key: CacheKey, precision: str, machine: Machine, measuring: Measuring = Measuring.NEVER
    ) -> None:
        self._cache_key = cache_key
        self._precision = precision
        self._machine = machine
        self._measuring = measuring
        self._chosen: dict[Any, KnownSetting] = {}
        self._is_over = False

    @property
    def used(self) -> tuple[KnownSetting, ...]:
        """The settings of the last drawing that the component had a part in."""
        return tuple(dict.fromkeys(self._chosen.values()))

    def begin_drawing(self) -> None:
        """Let the settings of the last drawing be forgotten at the next call."""
        self._is_over = True

    def setting(self, shapes: Shapes) -> Setting:
        """The setting of the drawing; before its first call, the one that is known so far."""
        chosen = None if self._is_over else self._chosen.get(shapes_key(shapes))
        return (chosen or self._known(shapes)).setting

    def choose_setting(self, shapes: Shapes, measure: Callable[[], TuningResult]) -> None:
        """Choose the setting of the drawing, if this is its first call."""
        if self._is_over:
            self._chosen.clear()
            self._is_over = False
        if shapes_key(shapes) not in self._chosen:
            self._chosen[shapes_key(shapes)] = self._known_or_measured(shapes, measure)

    def _known_or_measured(self, shapes: Shapes, measure: Callable[[], TuningResult]) -> KnownSetting:
        known = self._known(shapes)
        if known.is_measured or self._measuring is Measuring.NEVER:
            return known
        name = self._cache_key.component
        _log.warning("measuring which settings are the fastest for %s", name)
        result = measure()
        self._cache_key.cache.add_warning(
            f"it was measured which settings are the fastest for {name}, which took "
            f"{result.measuring_seconds:.1f} s: {result.setting}"
        )
        kept = keep_first_result(self._cache_key, shapes, self._precision, self._machine, result)
        return KnownSetting(kept, is_measured=True)

    def _known(self, shapes: Shapes) -> KnownSetting:
        """The setting that was measured at this size, or at the nearest size that is near."""
        records = self._cache_key.cache.settings()
        key = settings_key(self._cache_key, shapes, self._precision, self._machine)
        here = _chosen(records.get(key, {}), self._precision, self._machine)
        if here is not None:
            return KnownSetting(here, is_measured=True)
        of = _component_key(self._cache_key, self._precision, self._machine)
        near = [
            (ratio, chosen)
            for record in records.values()
            if record.get("of") == of
            and (chosen := _chosen(record, self._precision, self._machine))
            and (ratio := _size_ratio(_value_counts(shapes), record.get("size"))) <= NEAR_SIZES
        ]
        return KnownSetting(min(near, key=lambda each: each[0])[1], is_measured=True) if near else KnownSetting()


def shapes_key(shapes: Shapes) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The shapes as a key of dictionaries."""
    return tuple(sorted(shapes.items()))


def _chosen(record: Mapping[str, Any], precision: str, machine: Machine) -> Setting | None:
    """The setting that a record holds; None where none was measured."""
    return Setting.from_json(record.get("chosen"), machine.precisions_to_try(precision))
