"""One component at one size: with shapes left open, and with shapes fixed as drawing has them.

    python -m benchmarks.shapes sdxl-f16 unet [--runs 5]

The rows take turns, on what one step of a drawing gives the component.
"""

from __future__ import annotations

import argparse

import openvino as ov

from benchmarks.turns import compiled, component, seconds
from vinograph.resources import cpu_count


def main() -> None:
    """Compile the variants, call them in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("component")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    file, given = component(arguments.bundle, arguments.component)
    open_, fixed = ov.Core().read_model(file), ov.Core().read_model(file)
    fixed.reshape({name: list(value.shape) for name, value in given.items()})
    requests = {"shapes open": (compiled(open_), given), "shapes fixed": (compiled(fixed), given)}
    print(f"| `{arguments.component}`, {cpu_count()} cores | a call, median of {arguments.runs} |\n| --- | --- |")
    for name, taken in seconds(requests, arguments.runs).items():
        print(f"| {name} | {taken:.3g} s |")


if __name__ == "__main__":
    main()
