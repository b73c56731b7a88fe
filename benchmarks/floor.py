"""The least that a drawing can take on this machine: its multiply-adds, at the most that the processor does a second.

    python benchmarks/floor.py

The rates are measured here: the best of several products of large matrices in f32, bf16 and int8, by OpenVINO. Floors
with int8 count VAEs and attention at the rate of bf16, but for attention's first product where it is quantized, and
everything else at that of int8. The work of a forward pass is counted from the published configurations; T5's for a
prompt of 20 tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from vinograph.resources import cpu_count
from vinograph.runtime.devices import processor

SIDE = 4096
RUNS = 10


@dataclass(frozen=True)
class Part:
    """A component's work in one call, in thousand millions of multiply-adds: all of it, and what stays out of int8."""

    work: float
    kept: float = 0.0


PARTS = {
    "unet 64": Part(794, 28),
    "unet 128": Part(3381, 442),
    "transformer 1024": Part(618, 68 / 2 + 34),
    "transformer 4096": Part(3255, 1082 / 2 + 34),
    "prior": Part(577, 37 / 2),
    "decoder": Part(1172, 250 / 2),
    "vqgan": Part(1086, 1086),
    "vae 512": Part(1257, 1257),
    "tiny vae 512": Part(71, 71),
    "tiny vae 1024": Part(283, 283),
    "t5": Part(93),
    "clips": Part(49 + 7),
}
WORKLOADS = {
    "sdxl-turbo, 512x512, 1 step, tiny VAE": {"clips": 1, "unet 64": 1, "tiny vae 512": 1},
    "sdxl-turbo, 512x512, 1 step, full VAE": {"clips": 1, "unet 64": 1, "vae 512": 1},
    "sdxl-turbo, 512x512, 4 steps, tiny VAE": {"clips": 1, "unet 64": 4, "tiny vae 512": 1},
    "sdxl-turbo, 512x512, 4 steps, full VAE": {"clips": 1, "unet 64": 4, "vae 512": 1},
    "pixart-lcm, 1024x1024, 4 steps, tiny VAE": {"t5": 1, "transformer 4096": 4, "tiny vae 1024": 1},
    "pixart, 512x512, 20 steps, guidance, tiny VAE": {"t5": 1, "transformer 1024": 40, "tiny vae 512": 1},
    "wuerstchen, 1024x1024, 60 + 12 steps": {"prior": 120, "decoder": 12, "vqgan": 1},
    "wuerstchen, 1024x1024, 29 + 12 steps": {"prior": 58, "decoder": 12, "vqgan": 1},
    "wuerstchen, 1024x1024, 10 + 4 steps": {"prior": 20, "decoder": 4, "vqgan": 1},
}


def rate(kind: str) -> float:
    """Multiply-adds a second of a product of two matrices of SIDE × SIDE, the best of several."""
    rng = np.random.default_rng(0)
    given = ops.parameter([SIDE, SIDE], np.float32)
    weights: Any = ops.constant(rng.standard_normal((SIDE, SIDE)).astype(np.float32))
    rows: Any = given
    if kind == "int8":
        low, high = ops.constant(np.float32(-4)), ops.constant(np.float32(4))
        rows = ops.fake_quantize(given, low, high, low, high, 256)
        numbers = ops.constant(rng.integers(-127, 128, (SIDE, SIDE)).astype(np.int8))
        weights = ops.multiply(ops.convert(numbers, "f32"), ops.constant(np.full((SIDE, 1), 0.01, np.float32)))
    model = ov.Model([ops.matmul(rows, weights, transpose_a=False, transpose_b=True)], [given])
    precision = "f32" if kind == "f32" else "bf16"
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cpu_count(), "NUM_STREAMS": 1}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    values = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter()
        request.infer([values], share_inputs=True, share_outputs=True)
        taken.append(time.perf_counter() - start)
    return SIDE**3 / min(taken)


def floors(rates: dict[str, float]) -> dict[str, dict[str, float]]:
    """Seconds of each workload, with everything in bf16, and with int8 where it can be."""
    found = {}
    for name, calls in WORKLOADS.items():
        parts = [(PARTS[part], count) for part, count in calls.items()]
        bf16 = sum(part.work * count for part, count in parts) * 1e9 / rates["bf16"]
        kept = sum(part.kept * count for part, count in parts) * 1e9 / rates["bf16"]
        rest = sum((part.work - part.kept) * count for part, count in parts) * 1e9 / rates["int8"]
        found[name] = {"bf16": bf16, "int8": kept + rest}
    return found


def main() -> None:
    """Measure, and print the floors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rates = {kind: rate(kind) for kind in ("f32", "bf16", "int8")}
    found = floors(rates)
    if arguments.json:
        print(json.dumps({"processor": processor(), "cores": cpu_count(), "rates": rates, "floors": found}, indent=2))
        return
    told = ", ".join(f"{kind} {each / 1e12:.2f}" for kind, each in rates.items())
    print(f"{cpu_count()} cores of {processor()}; 10^12 multiply-adds a second: {told}\n")
    print("| | all bf16 | int8 and bf16 |\n| --- | --- | --- |")
    for name, seconds in found.items():
        print(f"| {name} | {seconds['bf16']:.1f} s | {seconds['int8']:.1f} s |")


if __name__ == "__main__":
    main()
