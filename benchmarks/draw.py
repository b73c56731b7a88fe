"""What drawing costs: seconds per stage, and the peak of resident memory.

    python benchmarks/draw.py BUNDLE --size 1024x1024 [--size 1024x1536] [--runs 1] [--option num_inference_steps=12]
    python benchmarks/draw.py BUNDLE --memory low --precision bf16 --option vae=tiny …
    python benchmarks/draw.py CHECKPOINT --with diffusers --dtype bfloat16 [--tiny-vae] …

Each size is drawn in a process of its own, so that the peak is that size's. The first picture, which compiles the
graphs, is told apart from the median of those that follow. ``--with diffusers`` draws with that library and PyTorch
instead, from the checkpoint that the bundle was made of; the stages are the calls of the pipeline's models.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def draw(
    bundle: str, width: int, height: int, runs: int, options: dict[str, Any], precision: str, memory: str
) -> dict[str, Any]:
    """Draw ``runs + 1`` pictures in this process and say what each took."""
    from vinograph import Pipeline

    pipe = Pipeline.from_pretrained(bundle, precision=precision, memory=memory)
    drawn = []
    for seed in range(runs + 1):
        start = time.perf_counter()
        result = pipe("a lighthouse by the sea at sunset", width=width, height=height, seed=seed, **options)
        drawn.append({"whole": time.perf_counter() - start, **result.timings})
    return {"size": f"{width}x{height}", "drawn": drawn, "devices": dict(result.devices)}


def draw_with_diffusers(
    checkpoint: str, width: int, height: int, runs: int, options: dict[str, Any], dtype: str, tiny: bool
) -> dict[str, Any]:
    """The same with diffusers' pipeline."""
    import diffusers
    import torch

    library: Any = diffusers  # its classes are not typed
    loaded: dict[str, Any] = {"torch_dtype": getattr(torch, dtype)}
    if any(Path(checkpoint).rglob("*.fp16.safetensors")):
        loaded["variant"] = "fp16"
    if tiny:
        folder = Path(checkpoint) / "tiny_vae"
        loaded["vae"] = library.AutoencoderTiny.from_pretrained(folder, **loaded)
    pipe = library.DiffusionPipeline.from_pretrained(checkpoint, **loaded)
    pipe.set_progress_bar_config(disable=True)
    spent: dict[str, float] = {}
    for name, part in pipe.components.items():
        for method in ("forward", "decode") if isinstance(part, torch.nn.Module) else ():
            if hasattr(part, method):
                setattr(part, method, _timed(spent, name, getattr(part, method)))
    drawn = []
    for seed in range(runs + 1):
        spent.clear()
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        pipe("a lighthouse by the sea at sunset", width=width, height=height, generator=generator, **options)
        drawn.append({"whole": time.perf_counter() - start, **spent})
    return {"size": f"{width}x{height}", "drawn": drawn, "devices": {"diffusers": f"CPU {dtype}"}}


def _timed(spent: dict[str, float], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """``method``, adding its seconds to those of ``name``."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

    return call


def report(measured: dict[str, Any]) -> None:
    """Print one size's figures."""
    first, *later = measured["drawn"]
    print(f"{measured['size']}: peak {measured['peak_bytes'] / 1e9:.1f} GB resident")
    print(f"  {'stage':16}{'first':>10}{f'median of {len(later)}' if later else '':>14}")
    for stage in first:
        median = f"{statistics.median(run[stage] for run in later):12.2f} s" if later else ""
        print(f"  {stage:16}{first[stage]:8.2f} s{median}")
    print("  " + ", ".join(f"{name} on {how}" for name, how in measured["devices"].items()), flush=True)


def main() -> None:
    """Draw each size in a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--size", action="append", default=[], help="WxH; may be given several times")
    parser.add_argument("--runs", type=int, default=1, help="pictures after the first")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an argument of the call")
    parser.add_argument("--with", dest="library", choices=["vinograph", "diffusers"], default="vinograph")
    parser.add_argument("--precision", default="auto", help="vinograph: auto, f32, bf16 or f16")
    parser.add_argument("--memory", choices=["auto", "low"], default="auto", help="vinograph: see Pipeline")
    parser.add_argument("--dtype", default="bfloat16", help="diffusers: float32 or bfloat16")
    parser.add_argument("--tiny-vae", action="store_true", help="diffusers: decode with the VAE in the folder tiny_vae")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = {name: _value(text) for name, _, text in (each.partition("=") for each in arguments.option)}
    for size in arguments.size or ["1024x1024"]:
        width, height = (int(side) for side in size.split("x"))
        if arguments.child:
            what = (arguments.bundle, width, height, arguments.runs, options)
            diffusers = arguments.library == "diffusers"
            if diffusers:
                measured = draw_with_diffusers(*what, arguments.dtype, arguments.tiny_vae)
            else:
                measured = draw(*what, arguments.precision, arguments.memory)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({**measured, "peak_bytes": peak}))
            continue
        command = [sys.executable, __file__, arguments.bundle, "--size", size, "--runs", str(arguments.runs), "--child"]
        command += ["--with", arguments.library, "--dtype", arguments.dtype]
        command += ["--precision", arguments.precision, "--memory", arguments.memory]
        command += ["--tiny-vae"] if arguments.tiny_vae else []
        for each in arguments.option:
            command += ["--option", each]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        report(json.loads(done.stdout))
    if not arguments.child:
        print(f"{len(os.sched_getaffinity(0))} cores")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
