"""What drawing with a bundle costs: seconds per stage, and the peak of resident memory.

    python benchmarks/draw.py BUNDLE --size 1024x1024 [--size 1024x1536] [--runs 1] [--option num_inference_steps=12]

Each size is drawn in a process of its own, so that the peak is that size's. The first picture, which compiles the
graphs, is told apart from the median of those that follow.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any


def draw(bundle: str, width: int, height: int, runs: int, options: dict[str, Any]) -> dict[str, Any]:
    """Draw ``runs + 1`` pictures in this process and say what each took."""
    from vinograph import Pipeline

    pipe = Pipeline.from_pretrained(bundle, precision=options.pop("precision", "auto"))
    drawn = []
    for seed in range(runs + 1):
        start = time.perf_counter()
        result = pipe("a lighthouse by the sea at sunset", width=width, height=height, seed=seed, **options)
        drawn.append({"whole": time.perf_counter() - start, **result.timings})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"size": f"{width}x{height}", "drawn": drawn, "peak_bytes": peak, "devices": dict(result.devices)}


def report(measured: dict[str, Any]) -> None:
    """Print one size's figures."""
    first, *later = measured["drawn"]
    print(f"{measured['size']}: peak {measured['peak_bytes'] / 1e9:.1f} GB resident")
    print(f"  {'stage':16}{'first':>10}{f'median of {len(later)}' if later else '':>14}")
    for stage in first:
        median = f"{statistics.median(run[stage] for run in later):12.2f} s" if later else ""
        print(f"  {stage:16}{first[stage]:8.2f} s{median}")
    print("  " + ", ".join(f"{name} on {how}" for name, how in measured["devices"].items()), flush=True)


def main() -> None:
    """Draw each size in a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--size", action="append", default=[], help="WxH; may be given several times")
    parser.add_argument("--runs", type=int, default=1, help="pictures after the first")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an argument of the call")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = {name: _value(text) for name, _, text in (each.partition("=") for each in arguments.option)}
    for size in arguments.size or ["1024x1024"]:
        width, height = (int(side) for side in size.split("x"))
        if arguments.child:
            print(json.dumps(draw(arguments.bundle, width, height, arguments.runs, options)))
            continue
        command = [sys.executable, __file__, arguments.bundle, "--size", size, "--runs", str(arguments.runs), "--child"]
        for each in arguments.option:
            command += ["--option", each]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        report(json.loads(done.stdout))
    if not arguments.child:
        print(f"{len(os.sched_getaffinity(0))} cores")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
