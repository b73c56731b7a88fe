"""What PixArt of the published size takes: the peaks of memory, and seconds per stage, beside diffusers.

    python benchmarks/full_size.py pixart full/pixart --consistency
    python benchmarks/memory.py full/pixart full [--size 1024x1024] [--steps 4] [--runs 5] [--only f16-low …]

Bundles are made in the second directory where they aren't there: DIRECTORY/pixart-f16, and so on. Each conversion and
each way to draw is a process of its own, one after the other. Its memory is what Linux tells of it in
/proc/PID/status, looked at two hundred times a second: *resident* is all of it, *anonymous* what no file backs,
*mapped* the pages of files, which the system can take back when it is short of memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vinograph.benchmark import memory
from vinograph.benchmark.memory import Peaks

DRAW = Path(__file__).with_name("draw.py")
WEIGHTS = ("f16", "int8", "int4")
# Storage of the text encoder, Pipeline's memory, and the VAE.
WAYS = {
    "f16": ("f16", "auto", "full"),
    "f16-tiny": ("f16", "auto", "tiny"),
    "f16-low": ("f16", "low", "full"),
    "int8-low": ("int8", "low", "full"),
    "int4-low": ("int4", "low", "full"),
    "int4-low-tiny": ("int4", "low", "tiny"),
}
TOKENS = (20, 120)  # those of a prompt of one line, and what diffusers pads them to

CONVERT = """
import sys
from pathlib import Path
from vinograph.convert import convert
source, target, weights = sys.argv[1:]
convert(source, Path(target), tiny_vae=source + "/tiny_vae", weights=weights)
"""
READ = """
import json, statistics, sys, time
from pathlib import Path
import numpy as np
from vinograph.runtime import Session
session, seconds = Session("text_encoder", Path(sys.argv[1]) / "text_encoder.xml", "CPU", "auto", False), {}
for count in map(int, sys.argv[3:]):
    inputs = {"input_ids": np.arange(3, 3 + count)[None], "attention_mask": np.ones((1, count), np.int64)}
    session(inputs)
    taken = []
    for _ in range(int(sys.argv[2])):
        start = time.perf_counter()
        session(inputs)
        taken.append(time.perf_counter() - start)
    seconds[count] = statistics.median(taken)
    session.free()
print(json.dumps(seconds))
"""


def watched(*command: object) -> tuple[str, Peaks, float]:
    """What a command of Python's prints, the peaks of its memory, and its seconds."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True)
    with memory.watched(child.pid) as peaks:
        printed, _ = child.communicate()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args)
    return printed, peaks, time.perf_counter() - start


def told(peaks: Peaks) -> str:
    """The peaks as a line."""
    return "peak " + ", ".join(f"{size / 1e9:.2f} GB {kind}" for kind, size in asdict(peaks).items())


def convert(checkpoint: Path, bundle: Path, weights: str) -> None:
    """Make a bundle where there is none, and tell what that took."""
    if not bundle.exists():
        _, peaks, seconds = watched("-c", CONVERT, checkpoint, bundle, weights)
        size = (bundle / "text_encoder.bin").stat().st_size
        print(f"convert {weights}: {told(peaks)}; {seconds:.0f} s; text encoder {size / 1e9:.3f} GB", flush=True)


def draw(name: str, *command: object) -> None:
    """Draw in a process of its own, and tell what that took."""
    printed, peaks, _ = watched(DRAW, *command, "--child")
    measured: dict[str, Any] = json.loads(printed)
    first, *later = measured["drawn"]
    print(f"{name}: {told(peaks)}")
    for stage in first:
        median = f", median {statistics.median(run[stage] for run in later):.2f} s" if later else ""
        print(f"  {stage:16} first {first[stage]:.2f} s{median}")
    print("  " + ", ".join(f"{part} on {how}" for part, how in measured["devices"].items()), flush=True)


def main() -> None:
    """Measure all, or what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", default="1024x1024", metavar="WxH")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--runs", type=int, default=1, help="pictures after the first")
    choices = [*WAYS, "diffusers", "diffusers-tiny", "tokens"]
    parser.add_argument("--only", action="append", choices=choices, help="may be given several times")
    arguments = parser.parse_args()
    wanted = arguments.only or choices
    bundles = {weights: arguments.directory / f"pixart-{weights}" for weights in WEIGHTS}
    common = ["--size", arguments.size, "--runs", arguments.runs, "--option", f"num_inference_steps={arguments.steps}"]
    common += ["--option", "guidance_scale=0.0"]
    for name in (name for name in wanted if name in WAYS):
        weights, frugal, vae = WAYS[name]
        convert(arguments.checkpoint, bundles[weights], weights)
        draw(name, bundles[weights], *common, "--memory", frugal, "--option", f"vae={vae}")
    for name in (name for name in wanted if name.startswith("diffusers")):
        tiny = ["--tiny-vae"] if name == "diffusers-tiny" else []
        draw(name, arguments.checkpoint, *common, "--with", "diffusers", "--dtype", "bfloat16", *tiny)
    if "tokens" in wanted:
        for weights, bundle in bundles.items():
            convert(arguments.checkpoint, bundle, weights)
            seconds = json.loads(watched("-c", READ, bundle, max(arguments.runs, 1), *TOKENS)[0])
            print(f"text encoder in {weights}: " + ", ".join(f"{n} tokens {s:.2f} s" for n, s in seconds.items()))


if __name__ == "__main__":
    main()
