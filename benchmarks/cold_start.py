"""Measures a first picture from the outside: whole processes, from their start to their end.

    python benchmarks/cold_start.py [--runs 5] [--model storybook-wuerstchen] [--work FOLDER]

Prints the median, smallest and largest seconds of `vinograph generate`, and of what `import
vinograph` and `from vinograph import Pipeline` add to an interpreter that does nothing. Pictures
are generated without the cache of compiled models, with an empty one, which is then filled, and
with a filled one. "Until the picture" ends when its file exists; the cache may be written after
that. Processor time and peak memory are those of the process. All pictures have to be equal to the
byte.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Run:
    """Measurements of one process.

    ``wall`` and ``until_picture`` are seconds of wall clock, ``processor`` is seconds of processor
    time, and ``peak`` the peak of resident memory in GB.
    """

    wall: float
    until_picture: float
    processor: float
    peak: float


def measure(arguments: tuple[str, ...], environment: Mapping[str, str], picture: Path) -> Run:
    """Run and measure one Python process that may write ``picture``."""
    picture.unlink(missing_ok=True)
    seen: list[float] = []
    ended = threading.Event()
    start = time.perf_counter()

    def poll() -> None:
        while not ended.wait(_POLL_SECONDS):
            if picture.exists():
                seen.append(time.perf_counter() - start)
                return

    poller = threading.Thread(target=poll)
    poller.start()
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as child:
        assert child.stderr is not None
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    ended.set()
    poller.join()
    if child.returncode:
        raise RuntimeError(errors.decode())
    processor = usage.ru_utime + usage.ru_stime
    return Run(wall, seen[0] if seen else wall, processor, usage.ru_maxrss / 1e6)


def spread(values: list[float]) -> str:
    """The median of ``values`` in seconds, with the range in brackets."""
    return f"{statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})"


def report(name: str, runs: list[Run], makes_picture: bool) -> str:
    """The line of one command."""
    processor, peak = (statistics.median(each) for each in zip(*((r.processor, r.peak) for r in runs), strict=True))
    line = f"{name:32} {spread([each.wall for each in runs])}, {processor:.2f} s of processor, peak {peak:.2f} GB"
    if makes_picture:
        line += f"; until the picture {spread([each.until_picture for each in runs]).strip()}"
    return line


def main() -> None:
    """Measure the commands in turns, so that a noisy moment spoils none of them alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default="storybook-wuerstchen")
    parser.add_argument("--work", type=Path, help="folder for the caches; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        picture = Path(folder) / "house.png"
        prompt = "a red house on a snowy hill at night"
        generate = (
            *("-m", "vinograph", "generate", prompt, "--no-metadata"),
            *("--model", arguments.model, "--seed", "7", "--output", str(picture)),
        )
        filled, empty = ({"VINOGRAPH_CACHE": str(Path(folder) / name)} for name in ("filled", "empty"))
        commands: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
            "an empty interpreter": (("-c", "pass"), {}),
            "import vinograph": (("-c", "import vinograph"), {}),
            "from vinograph import Pipeline": (("-c", "from vinograph import Pipeline"), {}),
            "vinograph generate, no cache": (generate, {**filled, "VINOGRAPH_CACHE_LIMIT": "0"}),
            "the same, the cache empty": (generate, empty),
            "the same, the cache filled": (generate, filled),
        }
        pictures = set()
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for index in range(arguments.runs + 1):
            for name, (command, variables) in commands.items():
                run = measure(command, {**os.environ, **variables}, picture)
                if index:  # the first is to warm up
                    runs[name].append(run)
                if picture.exists():
                    pictures.add(picture.read_bytes())
            shutil.rmtree(empty["VINOGRAPH_CACHE"], ignore_errors=True)
        cache_size = sum(file.stat().st_size for file in Path(filled["VINOGRAPH_CACHE"]).rglob("*.blob"))
    print(f"{arguments.runs} runs each after one warm-up, {len(os.sched_getaffinity(0))} cores")
    for name, each in runs.items():
        print(report(name, each, makes_picture="generate" in name or "same" in name))
    print(f"the cache has {cache_size / 1e6:.1f} MB; {len(pictures)} different picture{'s'[: len(pictures) != 1]}")


if __name__ == "__main__":
    main()
