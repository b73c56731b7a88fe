"""All checks in one command: formatting, linting, types, generated files, and the tests.

`--static` leaves the tests out. `--all` adds the tests that are marked `long`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TYPED = ("src/vinograph", "training", "scripts", "benchmarks", "tests")
GENERATED = ("scripts.call_signatures", "scripts.api_docs", "scripts.cli_docs", "scripts.family_docs")


def run(*command: str) -> None:
    """Run one of the tools, and stop with its exit code if it finds something."""
    print("$ python -m", *command, flush=True)
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Parse the options and run what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--static", action="store_true", help="all but the tests")
    parser.add_argument("--all", action="store_true", help="the tests that are marked long, too")
    arguments = parser.parse_args()
    run("ruff", "format", "--check", ".")
    run("ruff", "check", ".")
    run("mypy", *(name for name in TYPED if (ROOT / name).exists()))
    for script in GENERATED:
        run(script, "--check")
    if arguments.static:
        return
    # Each test process computes with its share of the processors: more threads than cores slow everything down.
    workers = max(1, min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Each thread that allocates takes memory from an arena of its own, and free memory in one is none for the others.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    # Hundreds of tests start a process; without bytecode each would compile the package again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    marks = ["-m", "not large"] if arguments.all else []
    # A worker keeps to neighbouring tests while there are enough: what their modules share is made once, not by each.
    run("pytest", "-q", "-n", str(workers), "--dist", "worksteal", "--durations", "15", *marks)


if __name__ == "__main__":
    main()
