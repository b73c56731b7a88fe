"""One component at one size: with shapes left open, with shapes fixed as drawing has them, and by numbers of threads.

    python -m benchmarks.shapes sdxl-f16 unet [--runs 5] [--threads 4 --threads 2 …]

The rows take turns, on what one step of a drawing gives the component.
"""

from __future__ import annotations

import argparse

import openvino as ov

from benchmarks.turns import compiled, seconds
from vinograph import catalog
from vinograph.quantize.speed import first_calls
from vinograph.runtime import cpu_count


def main() -> None:
    """Compile the variants, call them in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("component")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, action="append", default=[])
    arguments = parser.parse_args()
    bundle = catalog.find(arguments.bundle)
    given = dict(first_calls(bundle, (arguments.component,))[arguments.component])
    file = bundle.path / bundle.manifest.components[arguments.component].file
    ours = cpu_count()
    variants = {"shapes open": (False, ours), "shapes fixed": (True, ours)}
    variants |= {f"shapes fixed, {each} threads": (True, each) for each in arguments.threads}
    requests = {}
    for name, (fixed, threads) in variants.items():
        graph = ov.Core().read_model(file)
        if fixed:
            graph.reshape({key: list(value.shape) for key, value in given.items()})
        requests[name] = (compiled(graph, threads), given)
    print(f"| `{arguments.component}`, {ours} cores | a call, median of {arguments.runs} |\n| --- | --- |")
    for name, taken in seconds(requests, arguments.runs).items():
        print(f"| {name} | {taken:.3g} s |")


if __name__ == "__main__":
    main()
