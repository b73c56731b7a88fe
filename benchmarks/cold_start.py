"""How long a stranger waits: whole processes, cold, timed from outside.

    python benchmarks/cold_start.py [--runs 5] [--model storybook-wuerstchen]

Prints the median, smallest and largest of: `vinograph generate` as a whole process, and what `import vinograph`
and what its first use add to an interpreter that does nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(*arguments: str) -> float:
    """Wall-clock seconds of one Python process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
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
        commands = {
            "an empty interpreter": ("-c", "pass"),
            "import vinograph": ("-c", "import vinograph"),
            "from vinograph import Pipeline": ("-c", "from vinograph import Pipeline"),
            "vinograph generate": (
                *("-m", "vinograph", "generate", prompt),
                *("--model", arguments.model, "--seed", "7", "--output", picture),
            ),
        }
        for command in commands.values():
            seconds(*command)
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.runs):
            for name, command in commands.items():
                taken[name].append(seconds(*command))
    print(f"{arguments.runs} runs each after one warm-up, {len(os.sched_getaffinity(0))} cores")
    for name, values in taken.items():
        print(f"{name:32} {spread(values)}")


if __name__ == "__main__":
    main()
