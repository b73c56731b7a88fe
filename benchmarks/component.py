"""Measures one component on the CPU: compiling it, reading it from the cache, its settings.

    python benchmarks/component.py FOLDER/unet.xml --input sample=1x4x64x64 --input timestep=1 …
        [--runs 3] [--settings]

Each figure of the cache is of a process of its own: seconds until the component can compute, and
the process's peak of resident memory. With --settings, the component is timed in each setting that
a pipeline would measure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import openvino as ov

from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile

_PROCESS = """
import resource, sys, time
from pathlib import Path
from vinograph.runtime.cache import Cache
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile
from vinograph.runtime.tuning import CacheKey

xml = Path(sys.argv[1])
shapes = {name: tuple(map(int, shape.split("x"))) for name, shape in (each.split("=") for each in sys.argv[2:])}
session = Session(IrFile(xml.stem, xml), "CPU", "auto", CacheKey("benchmark", xml.stem, str(xml), False, Cache()))
begin = time.perf_counter()
session._compiled_for(shapes)
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def measure_start(arguments: argparse.Namespace, **environment: str) -> tuple[float, float]:
    """Seconds until a fresh process has compiled the component, and its peak memory in GB."""
    command = [sys.executable, "-c", _PROCESS, str(arguments.xml), *arguments.input]
    variables = {**os.environ, **environment}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout
    seconds, peak = map(float, output.split())
    return seconds, peak


def show_cache(arguments: argparse.Namespace) -> None:
    """Measure compiling without a cache and reading from a filled one, in turns, and print both."""
    with tempfile.TemporaryDirectory() as folder:
        uncached, cached = {"VINOGRAPH_CACHE_LIMIT": "0"}, {"VINOGRAPH_CACHE": folder, "VINOGRAPH_CACHE_LIMIT": "10GB"}
        seconds, peak = measure_start(arguments, **cached)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.blob"))
        print(f"compiled and cached: {seconds:.2f} s, peak {peak:.2f} GB; the cache has {size / 1e6:.1f} MB")
        starts: dict[str, list[tuple[float, float]]] = {"compiled": [], "read from the cache": []}
        for _ in range(arguments.runs):
            starts["compiled"].append(measure_start(arguments, **uncached))
            starts["read from the cache"].append(measure_start(arguments, **cached))
    for name, each in starts.items():
        durations = [seconds for seconds, _ in each]
        spread = f"{statistics.median(durations):.2f} s ({min(durations):.2f} to {max(durations):.2f})"
        print(f"{name}: {spread}, peak {max(peak for _, peak in each):.2f} GB")


def show_settings(arguments: argparse.Namespace) -> None:
    """Print the seconds of a call with random inputs in each setting."""
    rng = np.random.default_rng(0)
    shapes = {name: tuple(map(int, shape.split("x"))) for name, shape in (each.split("=") for each in arguments.input)}
    types = {port.get_any_name(): port.get_element_type() for port in ov.Core().read_model(arguments.xml).inputs}
    inputs = {
        name: np.ones(shape, np.int64) if types[name].is_integral() else rng.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }
    result = Session(IrFile(arguments.xml.stem, arguments.xml), "CPU", "auto").find_fastest_setting(inputs)
    for setting, seconds in result.seconds.items():
        print(f"{setting}: {seconds:.4f} s{'  (chosen)' if setting == result.setting else ''}")
    print(f"measuring took {result.measuring_seconds:.1f} s")


def main() -> None:
    """Measure the cache, or with --settings the settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xml", type=Path)
    parser.add_argument("--input", action="append", default=[], metavar="NAME=SHAPE")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--settings", action="store_true")
    arguments = parser.parse_args()
    show_settings(arguments) if arguments.settings else show_cache(arguments)


if __name__ == "__main__":
    main()
