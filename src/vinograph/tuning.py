"""Which of OpenVINO's settings is the fastest for a component with weights in few bits: measured, never assumed.

A linear layer with such weights rounds its activations to int8 as it goes, in groups of so many values that share a
scale, if it is told to ("dynamic quantization"). What group is the fastest, and in which precision the rest is best
computed, depends on the processor, the layers and the size of the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

GROUPS = (64, 128, 256, 32, 0)
NOISE = 0.03  # what is faster by less is not known to be
SHORTEST = 0.01  # seconds of a call below which measuring isn't worth its while
_RUNS = 3
_MOST_RUNS = 15
_MOMENT = 0.3
_CLEARLY_SLOWER = 1.5


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
class Choice:
    """The fastest setting, and the seconds that a call took in each that was tried to the end."""

    setting: Setting
    seconds: dict[Setting, float]
    took: float


Timed = Callable[[Setting, float], float | None]
"""The seconds of a call in a setting, told those of the fastest so far; None where the setting doesn't work."""


def fastest(timed: Timed, groups: tuple[int, ...], precisions: tuple[str, ...]) -> Choice:
    """Try the default, then each group, then the best of them in each other precision.

    One that is not faster than the default by more than :data:`NOISE` is not chosen.
    """
    begin = time.perf_counter()
    seconds: dict[Setting, float] = {}

    def attempt(setting: Setting) -> None:
        taken = timed(setting, min(seconds.values(), default=float("inf")))
        if taken is not None:
            seconds[setting] = taken

    attempt(DEFAULT)
    for group in groups:
        attempt(Setting(group))
    group_found = _best(seconds).group
    for precision in precisions:
        attempt(Setting(group_found, precision))
    return Choice(_best(seconds), seconds, time.perf_counter() - begin)


def _best(seconds: dict[Setting, float]) -> Setting:
    best = min(seconds, key=lambda setting: seconds[setting], default=DEFAULT)
    if DEFAULT in seconds and seconds[best] > seconds[DEFAULT] * (1 - NOISE):
        return DEFAULT
    return best


def seconds_of(run: Callable[[], Any], best: float) -> float:
    """The median of some runs after one to warm up: a few, or as many as fill a moment.

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
    return median(taken)


def cost(compiling: float, call: float, settings: int) -> float:
    """The seconds that it takes to try so many settings."""
    return settings * (compiling + call + max(_RUNS * call, min(_MOST_RUNS * call, _MOMENT)))
