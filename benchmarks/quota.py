"""Times one component in a control group with a CPU quota, with two numbers of threads.

    mkdir /sys/fs/cgroup/cpu/two && echo 200000 > /sys/fs/cgroup/cpu/two/cpu.cfs_quota_us   #
    version 1 mkdir /sys/fs/cgroup/two && echo "200000 100000" > /sys/fs/cgroup/two/cpu.max
    # version 2 python -m benchmarks.quota sdxl-f16 unet /sys/fs/cgroup/cpu/two [--runs 5] [--rounds
    3]

Either of the first two commands makes a group of two CPUs, as root. One variant has a thread per
processor, the other as many threads as the quota allows. Variants that took turns in one process
would share its quota, so each has processes of its own, which take turns. A group that used up its
quota is suspended until the end of a tenth of a second, which affects some calls and not others: so
it is a process's mean that counts.
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

from benchmarks.timing import compile_graph, load_component
from vinograph.resources import cpu_count


def main() -> None:
    """Time processes of both variants in turns and print the table."""
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
        print(_mean_seconds(arguments.bundle, arguments.component, arguments.threads, arguments.runs))
        return
    counts = {"a thread for each processor": processors, "as many as the quota": cpu_count()}
    seconds: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(arguments.rounds):
        for name, threads in counts.items():
            command = [sys.executable, "-m", "benchmarks.quota", *sys.argv[1:], "--threads", str(threads)]
            seconds[name].append(float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    print(f"| `{arguments.component}`, threads | a call, median of {arguments.rounds} (smallest to largest) |")
    print("| --- | --- |")
    for name, each in seconds.items():
        print(f"| {counts[name]}: {name} | {statistics.median(each):.3g} s ({min(each):.3g} to {max(each):.3g}) |")


def _mean_seconds(model: str, name: str, threads: int, runs: int) -> float:
    """The mean seconds of a call with ``threads`` threads, after one call to warm up."""
    file, inputs = load_component(model, name)
    graph = ov.Core().read_model(file)
    graph.reshape({key: list(value.shape) for key, value in inputs.items()})
    request = compile_graph(graph, threads)
    request.infer(inputs)
    start = time.perf_counter()
    for _ in range(runs):
        request.infer(inputs)
    return (time.perf_counter() - start) / runs


if __name__ == "__main__":
    main()
