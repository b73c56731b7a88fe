"""One component in a control group with a quota: with a thread for each processor, and with as many as the quota.

    mkdir /sys/fs/cgroup/cpu/two && echo 200000 > /sys/fs/cgroup/cpu/two/cpu.cfs_quota_us      # version 1, as root
    mkdir /sys/fs/cgroup/two && echo "200000 100000" > /sys/fs/cgroup/two/cpu.max               # version 2, as root
    python -m benchmarks.quota sdxl-f16 unet /sys/fs/cgroup/cpu/two [--runs 5] [--rounds 3]

Threads that take turns in one process would share its quota, so each has processes of its own, which take turns. A
group that has used up its quota is held up to the end of a tenth of a second, which meets some calls and not others:
so it is the mean of a process's calls that counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import openvino as ov

from benchmarks.turns import compiled, component
from vinograph.resources import cpu_count


def main() -> None:
    """Let processes of both take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("component")
    parser.add_argument("group", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    processors = cpu_count()
    (arguments.group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    if arguments.threads:
        print(_call(arguments.bundle, arguments.component, arguments.threads, arguments.runs))
        return
    counts = {"a thread for each processor": processors, "as many as the quota": cpu_count()}
    taken: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(arguments.rounds):
        for name, threads in counts.items():
            command = [sys.executable, "-m", "benchmarks.quota", *sys.argv[1:], "--threads", str(threads)]
            taken[name].append(float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    print(f"| `{arguments.component}`, threads | a call, median of {arguments.rounds} (smallest to largest) |")
    print("| --- | --- |")
    for name, each in taken.items():
        print(f"| {counts[name]}: {name} | {statistics.median(each):.3g} s ({min(each):.3g} to {max(each):.3g}) |")


def _call(model: str, name: str, threads: int, runs: int) -> float:
    """The mean seconds of a call after the first."""
    file, given = component(model, name)
    graph = ov.Core().read_model(file)
    graph.reshape({key: list(value.shape) for key, value in given.items()})
    request = compiled(graph, threads)
    request.infer(given)
    start = time.perf_counter()
    for _ in range(runs):
        request.infer(given)
    return (time.perf_counter() - start) / runs


if __name__ == "__main__":
    main()
