"""How long a stranger waits: whole processes, cold, timed from outside.

    python benchmarks/cold_start.py [--runs 5] [--model storybook-wuerstchen]

Prints the median, smallest and largest of: `vinograph generate` as a whole process, and what `import vinograph`
and what its first use add to an interpreter that does nothing. It draws without the cache of compiled models, with one
that is empty (so that it is filled, too), and with one that is filled.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(arguments: tuple[str, ...], environment: dict[str, str]) -> float:
    """Wall-clock seconds of one Python process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env={**os.environ, **environment})
    return time.perf_counter() - start


def spread(values: list[float]) -> str:
    """Median, and the range in brackets."""
    return f"{statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Alternate the commands, so that a noisy moment spoils none of them alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default="storybook-wuerstchen")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / "house.png")
        prompt = "a red house on a snowy hill at night"
        generate = (
            *("-m", "vinograph", "generate", prompt),
            *("--model", arguments.model, "--seed", "7", "--output", picture),
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
        for command in commands.values():
            seconds(*command)
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.runs):
            for name, command in commands.items():
                shutil.rmtree(empty["VINOGRAPH_CACHE"])
                taken[name].append(seconds(*command))
                Path(empty["VINOGRAPH_CACHE"]).mkdir(exist_ok=True)
        kept = sum(file.stat().st_size for file in Path(filled["VINOGRAPH_CACHE"]).rglob("*.blob"))
    print(f"{arguments.runs} runs each after one warm-up, {len(os.sched_getaffinity(0))} cores")
    for name, values in taken.items():
        print(f"{name:32} {spread(values)}")
    print(f"the cache has {kept / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
