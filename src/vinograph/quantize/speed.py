"""Whether what was quantized is faster than what it was made of, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.bundle import Bundle, DenoiserSpeed, Speed
from vinograph.pipeline import Pipeline, watched
from vinograph.runtime import Session, cpu_count, processor

Inputs = Mapping[str, NDArray[Any]]

_RUNS = 3


def inputs_of(bundle: Bundle, steps: Mapping[str, str]) -> dict[str, Inputs]:
    """What the components that ``steps`` names are given in their first calls, at the bundle's own size.

    ``steps`` has the argument that sets each one's number of steps; one step of each is drawn.
    """
    seen: dict[str, Inputs] = {}
    pipe = Pipeline(bundle, memory="low")

    def note(name: str, inputs: Inputs) -> None:
        if name in steps and name not in seen:
            seen[name] = {key: np.array(value) for key, value in inputs.items()}

    with watched(pipe, note):
        pipe("a red house on a hill", seed=0, output_type="latent", **dict.fromkeys(steps.values(), 1))
    return seen


def measure(bundle: Bundle, folder: Path, steps: Mapping[str, str]) -> Speed:
    """Time each denoiser that ``steps`` names in ``bundle``, and in ``folder``, where its quantized files lie."""
    takes = Pipeline(bundle).calls["generate"].takes
    found = {}
    for name, inputs in inputs_of(bundle, steps).items():
        component = bundle.manifest.components[name]
        before, after = (
            seconds(Session(name, place / component.file, "CPU", "auto", component.f16_safe), inputs)
            for place in (bundle.path, folder)
        )
        found[name] = DenoiserSpeed(before, after, int(takes[steps[name]]))
    return Speed(processor(), cpu_count(), found)


def seconds(session: Session, inputs: Inputs) -> float:
    """The median of a few calls, after one that compiles."""
    session(inputs)
    taken = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        session(inputs)
        taken.append(time.perf_counter() - start)
    session.free()
    return statistics.median(taken)
