"""Times one component with dynamic shapes, and with static shapes as generation compiles it.

    python -m benchmarks.shapes sdxl-f16 unet [--runs 5]

The two take turns, with the inputs of one generation step.
"""

from __future__ import annotations

import argparse

import openvino as ov

from benchmarks.timing import compile_graph, load_component, median_seconds
from vinograph.resources import cpu_count


def main() -> None:
    """Time the component in both variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("component")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    file, inputs = load_component(arguments.bundle, arguments.component)
    dynamic, static = ov.Core().read_model(file), ov.Core().read_model(file)
    static.reshape({name: list(value.shape) for name, value in inputs.items()})
    requests = {"dynamic shapes": (compile_graph(dynamic), inputs), "static shapes": (compile_graph(static), inputs)}
    print(f"| `{arguments.component}`, {cpu_count()} cores | a call, median of {arguments.runs} |\n| --- | --- |")
    for name, seconds in median_seconds(requests, arguments.runs).items():
        print(f"| {name} | {seconds:.3g} s |")


if __name__ == "__main__":
    main()
