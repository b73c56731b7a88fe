"""Where a batch on many machines becomes slow, and what a million pictures cost.

    python -m benchmarks.scale

measures on this machine what each part can do, and then what the parts give together:

- the driver: rows that it plans, leaves out because they are drawn, records, and lists in a second
- Ray: tasks that it hands out in a second with actors that draw nothing, and a row's bytes
- files that are written and flushed in a second, and what a folder of a million takes
- pictures per minute: one process, several, and Ray with one node and with two

The model of costs takes the seconds of a picture from `--seconds`, on `--threads` processors. The
default is PixArt-LCM at 1024×1024 with 4 steps, by the figures in `docs/performance.md`.

    python -m benchmarks.scale --only model

prints the model with the figures of the last measurement, which `--results` names.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.index import Outcome
from vinograph.batch.measuring import Need
from vinograph.batch.pictures import Expansion
from vinograph.batch.rows import open_prompts
from vinograph.batch.run import Batch, Run
from vinograph.batch.store import LocalStore
from vinograph.families.registry import family
from vinograph.pipeline import Pipeline
from vinograph.request import arguments_of
from vinograph.resources import cpu_count

MODEL = "storybook-sdxl"
NODE = {"object_store_memory": 80_000_000, "include_log_monitor": False}
LARGE = 1_500_000  # bytes of a PNG at 1024×1024
_PICTURE = ("--size", "512x512", "--steps", "4")  # a quarter of a second: Ray starts actors meanwhile


@dataclass
class Figures:
    """What was measured; rates are per second."""

    planned: float = 0
    left_out: float = 0
    recorded: float = 0
    listed: float = 0
    driver_bytes: float = 0
    index_bytes_per_row: float = 0
    tasks: float = 0
    task_bytes: float = 0
    files: float = 0
    files_large: float = 0
    folder_bytes_per_file: float = 0
    paces: dict[str, float] | None = None
    processors: int = 0


def batch_of(prompts: Path, out: Path) -> Batch:
    """A batch as the command makes it."""
    pipe = Pipeline.from_pretrained(MODEL)
    declared = arguments_of(family(pipe.model.manifest.family).request)
    expansion = Expansion({name: declared[name] for name in pipe.calls["generate"].takes})
    return Batch(open_prompts(prompts), str(out), Drawing(MODEL), expansion)


def write_rows(file: Path, count: int) -> Path:
    """A JSONL file of so many rows."""
    with file.open("w", encoding="utf-8") as stream:
        for index in range(count):
            row = {"prompt": f"a red house number {index} on a green hill by the sea", "seed": index}
            stream.write(json.dumps(row) + "\n")
    return file


@contextlib.contextmanager
def timed(count: int) -> Iterator[list[float]]:
    """A list that gets the rate of ``count`` things that the block does."""
    rates: list[float] = []
    started = time.perf_counter()
    yield rates
    rates.append(count / (time.perf_counter() - started))


def measure_driver(figures: Figures, place: Path, count: int) -> None:
    """Plan rows, record them as drawn, list them, and plan them again."""
    batch = batch_of(write_rows(place / "rows.jsonl", count), place / "out")
    pipe = Pipeline.from_pretrained(MODEL)
    with contextlib.closing(Run(batch, pipe, 1)) as run:
        with timed(count) as rates:
            keys = [each.key for each in run.jobs()]
        figures.planned = rates[0]
        with timed(count) as rates:
            for key in keys:
                run.ended(Outcome(key, "0" * 64, LARGE, 30.0))
        figures.recorded = rates[0]
        with timed(count) as rates:
            run.publish()
        figures.listed = rates[0]
    index = place / "out" / ".vinograph" / "index.sqlite"
    figures.index_bytes_per_row = index.stat().st_size / count
    for key in keys:  # empty files, which are there all the same
        file = place / "out" / key[:2] / f"{key}.png"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    with contextlib.closing(Run(batch, pipe, 1)) as run, timed(count) as rates:
        assert not list(run.jobs())
    figures.left_out = rates[0]
    folders = sum(each.stat().st_size for each in (place / "out").glob("??"))
    figures.folder_bytes_per_file = folders / count


def measure_files(figures: Figures, place: Path, count: int) -> None:
    """Write files as processes do, each flushed to the disk."""
    store = LocalStore(place / "files")
    for name, content in (("files", b"x" * 20_000), ("files_large", os.urandom(LARGE))):
        with timed(count) as rates:
            for index in range(count):
                store.write(f"{index * 2654435761 % 2**32:08x}{len(content):024x}", content)
        setattr(figures, name, rates[0])


class Idle:
    """An actor that draws nothing."""

    def __call__(self, rows: Any) -> Iterator[Any]:
        """Say that each job was drawn."""
        from vinograph.batch.cluster.actor import table, values

        for row in values(rows):
            for job in row:  # type: ignore[union-attr]
                yield table([Outcome(job.key, "0" * 64, LARGE, 30.0)])


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """A Ray cluster of so many nodes of one processor on this machine, and a head; its address."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_raylet_start_wait_time_s="240")
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:1], str(Path("src").absolute()), str(Path().absolute())])
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **NODE})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1, **NODE)
        yield made.address
    finally:
        made.shutdown()


def measure_tasks(figures: Figures, address: str, place: Path, count: int) -> None:
    """Have two idle actors say that they have drawn, a picture for each task."""
    from vinograph.batch.cluster import dataset
    from vinograph.batch.cluster.actor import values
    from vinograph.batch.cluster.connection import connected

    jobs = [
        Job(f"{index:032x}", {"prompt": f"a red house number {index} on a green hill by the sea", "seed": index})
        for index in range(count)
    ]
    figures.task_bytes = statistics.mean(len(pickle.dumps((each,))) for each in jobs[:100])
    with connected(address):
        import ray.data

        dataset.configure()
        with contextlib.closing(dataset.Spool(place / "jobs")) as spool:
            for each in jobs:
                spool.add([each])
            spool.end()
            compute = ray.data.ActorPoolStrategy(size=2)
            results = dataset.jobs(spool).map_batches(
                Idle, batch_size=None, batch_format="pyarrow", compute=compute, num_cpus=1
            )
            times = []
            for rows in results.iter_batches(batch_size=None, batch_format="pyarrow"):
                times += [time.perf_counter() for _ in values(rows)]
    assert len(times) == count
    begin = count // 10  # the actors have started by then
    figures.tasks = (count - 1 - begin) / (times[-1] - times[begin])
    figures.driver_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pace(prompts: Path, out: Path, *how: str) -> float:
    """Pictures per minute of the command, between its first picture and its last."""
    stamps: list[float] = []
    process = subprocess.Popen(
        [*(sys.executable, "-m", "vinograph", "batch", prompts, out, "--model", MODEL), *_PICTURE, *how],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def watch() -> None:
        while process.poll() is None:
            there = len(list(out.glob("??/*.png")))
            stamps.extend([time.perf_counter()] * (there - len(stamps)))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    assert code == 0
    begin = len(stamps) // 3  # all processes have started by then
    return 60 * (len(stamps) - 1 - begin) / (stamps[-1] - stamps[begin])


def measure_paces(figures: Figures, place: Path, count: int) -> None:
    """Draw the same pictures in several ways."""
    prompts = write_rows(place / "few.jsonl", count)
    figures.paces = {}
    for name, how in (("one process", ("--workers", "1", "--threads", "1")), ("two processes", ("--threads", "1"))):
        figures.paces[name] = pace(prompts, place / name, *how)
    for nodes in (1, 2):
        with cluster(nodes) as address:
            name = f"Ray, {nodes} node{'s' if nodes > 1 else ''}"
            figures.paces[name] = pace(prompts, place / name, "--threads", "1", "--ray", address)


def show(figures: Figures) -> None:
    """Print what was measured."""
    print(f"{figures.processors} processors")
    print(f"driver: plans {figures.planned:,.0f} rows a second, leaves out {figures.left_out:,.0f} that are drawn,")
    print(f"        records {figures.recorded:,.0f}, lists {figures.listed:,.0f} in the manifest;")
    print(f"        index {figures.index_bytes_per_row:.0f} bytes a row, {figures.driver_bytes / 1e6:.0f} MB resident")
    print(f"Ray:    {figures.tasks:,.0f} tasks a second, {figures.task_bytes:.0f} bytes for each in the object store")
    print(f"files:  {figures.files:,.0f} of 20 kB a second, {figures.files_large:,.0f} of 1.5 MB, flushed;")
    print(f"        {figures.folder_bytes_per_file:.0f} bytes of folders for each")
    for name, value in (figures.paces or {}).items():
        print(f"{name:14} {value:8.1f} pictures per minute")


def show_model(figures: Figures, options: argparse.Namespace) -> None:
    """Print what a million pictures cost, and what the parts that all machines share have to do."""
    count = 1_000_000
    from vinograph.batch.cluster.run import task_size

    processes = options.cores // options.threads
    print(
        f"\n{count:,} pictures of {options.seconds} s on {options.threads} processors; machines of {options.cores} "
        f"processors for ${options.price} an hour"
    )
    print("machines   hours   cost  pictures/s   Ray, driver  index  files, MB/s")
    for machines in (10, 100, 1000):
        per_second = machines * processes / options.seconds
        size = task_size(Need(options.threads, pace=1 / options.seconds), machines * processes)
        hours = count / per_second / 3600
        print(
            f"{machines:8} {hours:7.1f} ${hours * machines * options.price:6,.0f} {per_second:9.1f} "
            f"{per_second / size / figures.tasks:11.1%} {per_second / figures.recorded:8.2%} "
            f"{per_second:7.1f}/s, {per_second * LARGE / 1e6:.0f}"
        )
    print(f"planning a million rows: {count / figures.planned:.0f} s, while machines draw; leaving out a million")
    print(f"that are drawn: {count / figures.left_out:.0f} s; the manifest: {count / figures.listed:.0f} s")
    print(f"index: {count * figures.index_bytes_per_row / 1e6:.0f} MB; pictures: {count * LARGE / 1e12:.1f} TB in 256")
    ahead = max(1000, 4 * 1000 * processes)
    print(f"folders of {count / 256:,.0f}; object store: {ahead * figures.task_bytes / 1e6:.1f} MB, as {ahead:,}")
    print("pictures are handed out ahead for 1,000 machines")


PARTS = ("driver", "files", "tasks", "paces", "model")


def main() -> int:
    """Parse the options, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone; again for more")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the driver's part")
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=240)
    parser.add_argument("--seconds", type=float, default=37.5, help="of a picture")
    parser.add_argument("--threads", type=int, default=2, help="that draw it")
    parser.add_argument("--cores", type=int, default=16, help="of a machine")
    parser.add_argument("--price", type=float, default=0.3, help="of a machine's hour")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/scale.json"))
    options = parser.parse_args()
    parts = options.only or PARTS
    known = json.loads(options.results.read_text()) if options.results.is_file() else {}
    figures = Figures(**known)
    figures.processors = cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if "driver" in parts:
            measure_driver(figures, place, options.rows)
        if "files" in parts:
            measure_files(figures, place, options.files)
        if "tasks" in parts:
            with cluster(2) as address:
                measure_tasks(figures, address, place, options.tasks)
        if "paces" in parts:
            measure_paces(figures, place, options.pictures)
    if set(parts) != {"model"}:
        options.results.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    show(figures)
    if "model" in parts:
        show_model(figures, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
