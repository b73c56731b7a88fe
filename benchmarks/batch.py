"""Pictures per minute of a batch, by how the processors are divided, beside one process alone.

    python -m benchmarks.batch --model storybook-sdxl --size 128 --pictures 60

One process alone is a loop of `pipe(...)` and `save` with all processors, as a user writes it. The
divisions draw the same pictures in processes that are kept. Rounds alternate, and the medians are
printed with the lowest and the highest, as other programs may use the machine.

    python -m benchmarks.batch --kills

draws 2,000 pictures, kills the driver or a worker at twenty random moments, and compares the files
with an undisturbed run's, which is a long test of `tests/batch`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vinograph import Pipeline
from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.measuring import candidates
from vinograph.batch.processes import Drawn, Processes
from vinograph.images import save
from vinograph.resources import cpu_count


def jobs(count: int, size: int) -> list[Job]:
    """Pictures to draw."""
    return [
        Job(f"{index:032x}", {"prompt": f"a red house number {index}", "seed": index, "height": size, "width": size})
        for index in range(count)
    ]


def alone(pipe: Pipeline, work: list[Job], folder: Path) -> float:
    """Pictures per minute of a loop."""
    started = time.perf_counter()
    for each in work:
        result = pipe(**each.arguments)
        save(result.images[0], folder / f"{each.key}.png", result.metadata(0))
    return 60 * len(work) / (time.perf_counter() - started)


def together(processes: Processes, work: list[Job]) -> float:
    """Pictures per minute of processes that run."""
    started = time.perf_counter()
    done = [each for each in processes.draw(iter(work)) if isinstance(each, Drawn)]
    assert not [each for each in done if each.outcome.error is not None]
    return 60 * len(done) / (time.perf_counter() - started)


def compare(model: str, size: int, pictures: int, rounds: int) -> None:
    """Measure and print."""
    work, paces = jobs(pictures, size), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as place:
        pipe = Pipeline.from_pretrained(model)
        alone(pipe, work[:1], Path(place))
        for _ in range(rounds):
            paces.setdefault("alone", []).append(alone(pipe, work, Path(place)))
            for division in candidates():
                out = f"{place}/{division.workers}"
                with Processes(Drawing(model), out, division.workers, division.threads) as processes:
                    together(processes, work[: 4 * division.workers])
                    pace = together(processes, work)
                paces.setdefault(f"{division.workers} × {division.threads}", []).append(pace)
    print(f"{model}, {size}², {pictures} pictures, {cpu_count()} processors, {rounds} rounds")
    base = statistics.median(paces["alone"])
    for name, values in paces.items():
        middle = statistics.median(values)
        print(f"{name:8} {middle:8.1f} per minute ({min(values):.1f}–{max(values):.1f})  {middle / base:.2f}×")


def main() -> int:
    """Parse the options, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="storybook-sdxl")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", action="store_true", help="run the test of twenty kills instead")
    options = parser.parse_args()
    if options.kills:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "long", "tests/batch/test_batch_kills.py"]
        return subprocess.run(command, check=False).returncode
    compare(options.model, options.size, options.pictures, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
