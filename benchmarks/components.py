"""Times every component of two models in turns, with the inputs of one generation step.

    python -m benchmarks.components sdxl-f16 /models/sdxl-turbo [--runs 9] [--component unet]

A model is a bundle or a checkpoint's directory. Each component is compiled as a pipeline compiles
it, once for either model, and then called in turns. *Ratio* is the second model's seconds over the
first's: the median over all turns, with quartiles. So a busy moment, which hits both calls of a
turn, spoils little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.components import source_of
from vinograph.models import catalog
from vinograph.models.model import Model
from vinograph.pipeline import Pipeline, observe_inputs
from vinograph.resources import cpu_count
from vinograph.runtime.sessions import Session

Inputs = Mapping[str, NDArray[Any]]


def first_calls(model: Model, size: int | None) -> dict[str, Inputs]:
    """Each component's inputs in its first call, for a picture of one step at ``size``, if given."""
    calls: dict[str, Inputs] = {}
    pipe = Pipeline(model, memory="low")
    side = size or model.manifest.limits["native_size"]
    takes = pipe.calls["generate"].takes
    options = [argument for option, argument in pipe.options.items() if option.endswith("steps")]
    steps: dict[str, Any] = {argument: 1 for argument in options if takes[argument] is not None}

    def record(name: str, inputs: Inputs) -> None:
        calls.setdefault(name, {key: np.array(value) for key, value in inputs.items()})

    with observe_inputs(pipe, record):
        pipe("a red house on a hill", seed=0, height=side, width=side, output_type="np", **steps)
    return calls


def compare(name: str, models: tuple[Model, Model], inputs: tuple[Inputs, Inputs], runs: int, precision: str) -> str:
    """The table's row for the component ``name``."""
    sessions = [Session(source_of(model, name), "CPU", precision) for model in models]
    seconds: list[list[float]] = [[], []]
    for turn in range(-1, runs):  # the turn before the first compiles
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            sessions[which](inputs[which])
            if turn >= 0:
                seconds[which].append(time.perf_counter() - start)
    ratios = [second / first for first, second in zip(*seconds, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    first, second = map(statistics.median, seconds)
    return f"| {name} | {first:.4g} s | {second:.4g} s | {middle:.3f} | {low:.3f} to {high:.3f} |"


def main() -> None:
    """Record inputs by generating pictures, time the components, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs=2, metavar="MODEL")
    parser.add_argument("--component", action="append", help="only this one; may be given again")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--size", type=int, help="of the picture; default: the model's own")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    first, second = (catalog.find(each) for each in arguments.models)
    models, calls = (first, second), tuple(first_calls(each, arguments.size) for each in (first, second))
    names = [name for name in calls[0] if name in calls[1] and name in (arguments.component or calls[0])]
    title, other_title = arguments.models
    print(f"| {cpu_count()} cores, {arguments.runs} turns | {title} | {other_title} | ratio | quartiles |")
    print("| --- | --- | --- | --- | --- |")
    for name in names:
        inputs = (calls[0][name], calls[1][name])
        print(compare(name, models, inputs, arguments.runs, arguments.precision), flush=True)


if __name__ == "__main__":
    main()
