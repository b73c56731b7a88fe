"""Measures a conversion, a copy of the checkpoint, and a copy that is flushed to the disk, in turns.

    python -m benchmarks.conversion CHECKPOINT FOLDER [--runs 3] [--pause 10]

FOLDER is on the checkpoint's disk, and has room for a bundle. It prints the medians of seconds by
the clock, with the smallest and the largest, and of seconds of processors. A pause before each lets
a virtual machine's host take back the memory that the one before left: else the next finds more.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from os import times
from pathlib import Path
from time import perf_counter, sleep


def ways(checkpoint: Path, target: Path) -> dict[str, list[str]]:
    """Commands that write ``target``, by what they do."""
    copy = ["cp", "-r", str(checkpoint), str(target)]
    flush = 'cp -r "$0" "$1" && find "$1" -type f -exec sync {} +'
    convert = [str(Path(sys.executable).with_name("vinograph")), "convert", str(checkpoint), str(target)]
    return {"copy": copy, "copy, flushed": ["sh", "-c", flush, str(checkpoint), str(target)], "conversion": convert}


def run(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of processors that a command takes."""
    before, begin = times(), perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds, after = perf_counter() - begin, times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pause", type=float, default=10)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    target = given.folder / "target"
    measured: dict[str, list[tuple[float, float]]] = {}
    for _ in range(given.runs):
        for name, command in ways(given.checkpoint, target).items():
            sleep(given.pause)
            measured.setdefault(name, []).append(run(command))
            print(f"{name}: {measured[name][-1][0]:.2f} s, {measured[name][-1][1]:.2f} s of processors", flush=True)
            shutil.rmtree(target)
    for name, results in measured.items():
        seconds = [each for each, _ in results]
        print(
            f"{name}, median of {given.runs}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to "
            f"{max(seconds):.2f}), {statistics.median([used for _, used in results]):.2f} s of processors"
        )


if __name__ == "__main__":
    main()
