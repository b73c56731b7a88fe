"""How long a stranger waits: whole processes, cold, timed from outside.

    python benchmarks/cold_start.py [--runs 5] [--model storybook-wuerstchen] [--work FOLDER]

Prints the median, smallest and largest of: `vinograph generate` as a whole process, and what `import vinograph`
and what its first use add to an interpreter that does nothing. It draws without the cache of compiled models, with one
that is empty (so that it is filled, too), and with one that is filled. "Until the picture" ends when its file is there;
what is kept for the next process may be written after that. Processor time and peak memory are the process's own. The
pictures have to be the same to the byte.
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

_POLL = 0.01


@dataclass(frozen=True)
class Run:
    """Seconds of a process, of wall clock in all and until its picture, of the processors, and its peak of memory."""

    wall: float
    picture: float
    processors: float
    peak: float


def measured(arguments: tuple[str, ...], environment: Mapping[str, str], picture: Path) -> Run:
    """One Python process."""
    picture.unlink(missing_ok=True)
    seen: list[float] = []
    ended = threading.Event()
    start = time.perf_counter()

    def look() -> None:
        while not ended.wait(_POLL):
            if picture.exists():
                seen.append(time.perf_counter() - start)
                return

    watching = threading.Thread(target=look)
    watching.start()
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as child:
        assert child.stderr is not None
        told = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    ended.set()
    watching.join()
    if child.returncode:
        raise RuntimeError(told.decode())
    processors = usage.ru_utime + usage.ru_stime
    return Run(wall, seen[0] if seen else wall, processors, usage.ru_maxrss / 1e6)


def spread(values: list[float]) -> str:
    """Median, and the range in brackets."""
    return f"{statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Alternate the commands, so that a noisy moment spoils none of them alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default="storybook-wuerstchen")
    parser.add_argument("--work", type=Path, help="where the caches lie meanwhile; default: a temporary folder")
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
        taken: dict[str, list[Run]] = {name: [] for name in commands}
        for index in range(arguments.runs + 1):
            for name, (command, more) in commands.items():
                run = measured(command, {**os.environ, **more}, picture)
                if index:  # the first is to warm up
                    taken[name].append(run)
                if picture.exists():
                    pictures.add(picture.read_bytes())
            shutil.rmtree(empty["VINOGRAPH_CACHE"], ignore_errors=True)
        kept = sum(file.stat().st_size for file in Path(filled["VINOGRAPH_CACHE"]).rglob("*.blob"))
    print(f"{arguments.runs} runs each after one warm-up, {len(os.sched_getaffinity(0))} cores")
    for name, runs in taken.items():
        processors, peak = (
            statistics.median(each) for each in zip(*((r.processors, r.peak) for r in runs), strict=True)
        )
        told = f"{name:32} {spread([each.wall for each in runs])}, {processors:.2f} s of processor, peak {peak:.2f} GB"
        until = f"; until the picture {spread([each.picture for each in runs]).strip()}"
        print(told + (until if "generate" in name or "same" in name else ""))
    print(f"the cache has {kept / 1e6:.1f} MB; {len(pictures)} different picture{'s'[: len(pictures) != 1]}")


if __name__ == "__main__":
    main()
