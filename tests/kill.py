"""Kills `convert` and `quantize` at random moments, runs them again, and compares the bundles.

    python -m tests.kill --runs 20

Each run starts the command in a process of its own and kills it, as `kill -9` does, at a random
moment of its duration, up to three times in a row. What is left must not load as a bundle. The
command run again must give the undisturbed bundle's bytes, but for the timings that quantization
measures.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.bundles import comparable, save_sdxl_bundle
from tests.cli.conftest import command, environment

CHECKPOINT = Path(__file__).parent.parent / "training" / "checkpoints" / "storybook-sdxl"
_MOST_IN_A_ROW = 3
# Segments so small that even a small model is quantized in several.
_SMALL_SEGMENTS = "import vinograph.quantize.segments as s; s.SEGMENT = 20_000\n"


@dataclass(frozen=True)
class KillableCommand:
    """A command to kill: its line for a target."""

    name: str
    line: Callable[[Path], list[str]]

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start the command, which writes ``folder / "bundle"``."""
        env = environment(VINOGRAPH_CACHE=str(folder.parent / "cache"))
        return subprocess.Popen(
            self.line(folder / "bundle"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def finish(self, folder: Path) -> float:
        """Run the command to its end; returns the seconds that it took."""
        started = time.monotonic()
        with self.start(folder) as process:
            _, err = process.communicate()
        if process.returncode != 0:
            raise AssertionError(f"{self.name} ended with {process.returncode}: {err.decode(errors='replace')}")
        return time.monotonic() - started

    def kill(self, folder: Path, moment: float) -> bool:
        """Start the command, kill it after ``moment`` seconds; returns whether it was running."""
        with self.start(folder) as process:
            try:
                process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        return process.returncode == -signal.SIGKILL


def killable_commands(folder: Path, checkpoint: Path, bundle: Path | None) -> list[KillableCommand]:
    """Both commands; without a named bundle to quantize, a small one is made in ``folder``."""
    first = ""
    if bundle is None:
        from tests.quantize.conftest import denoise

        bundle, first = save_sdxl_bundle(folder / "small", graphs={"unet": denoise}).path, _SMALL_SEGMENTS
    quantize = ("quantize", bundle)
    return [
        KillableCommand("convert", lambda target: command("convert", checkpoint, target, warnings="default")),
        KillableCommand(
            "quantize", lambda target: command(*quantize, target, "--mode", "full", first=first, warnings="default")
        ),
    ]


def kill_and_rerun(
    job: KillableCommand, folder: Path, random: Random, duration: float, undisturbed: dict[str, bytes | str]
) -> str:
    """Kill the command and run it again; returns a line with the moment, and the fault if any."""
    folder.mkdir()
    moments: list[float] = []
    wanted = random.randint(1, _MOST_IN_A_ROW)
    while len(moments) < wanted:
        moment = random.uniform(0, duration)
        killed = job.kill(folder, moment)
        if not killed and moments:
            break  # what was there already left less to do: it has ended
        if not killed:
            return kill_and_rerun(job, folder.with_name(f"{folder.name}-again"), random, duration, undisturbed)
        moments.append(moment)
        if (folder / "bundle").exists() and comparable(folder / "bundle") != undisturbed:
            return f"killed after {moments}: a bundle that differs was left"
    took = 0.0 if (folder / "bundle").exists() else job.finish(folder)
    said = f"killed after {', '.join(f'{each:.2f}' for each in moments)} s; finished in {took:.1f} s"
    if comparable(folder / "bundle") != undisturbed:
        return f"{said}; DIFFERENT"
    left = {each.name for each in folder.iterdir()} - {"bundle", ".bundle.lock"}
    return f"{said}; LEFT {', '.join(left)}" if left else f"{said}; identical"


def main() -> int:
    """Parse the options, and kill and rerun the commands; returns 1 if a run went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, help="of the moments. Default: random")
    parser.add_argument("--command", choices=["convert", "quantize"], help="this one alone")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="to convert")
    parser.add_argument("--bundle", type=Path, help="to quantize. Default: a small one with random weights")
    options = parser.parse_args()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    good = True
    with tempfile.TemporaryDirectory() as place:
        for job in killable_commands(Path(place), options.checkpoint, options.bundle):
            if options.command in (None, job.name):
                good &= _kill_and_rerun_often(job, Path(place) / job.name, options.runs, seed)
    return 0 if good else 1


def _kill_and_rerun_often(job: KillableCommand, folder: Path, runs: int, seed: int) -> bool:
    (folder / "undisturbed").mkdir(parents=True)
    duration = job.finish(folder / "undisturbed")
    undisturbed = comparable(folder / "undisturbed" / "bundle")
    print(f"{job.name}: {duration:.1f} s undisturbed; seed {seed}", flush=True)
    good = 0
    for run in range(runs):
        line = kill_and_rerun(job, folder / str(run), Random(f"{job.name} {seed} {run}"), duration, undisturbed)
        good += line.endswith("identical")
        print(f"{job.name} {run + 1}/{runs}: {line}", flush=True)
    print(f"{job.name}: {good} of {runs} runs ended identical", flush=True)
    return good == runs


if __name__ == "__main__":
    sys.exit(main())
