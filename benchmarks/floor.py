"""Estimates the least time of a picture on this machine: its multiply-adds at peak rates.

    python benchmarks/floor.py [--json]

The rates are measured here: the best of several products of large matrices in f32, bf16 and int8,
by OpenVINO. Floors with int8 count VAEs and attention at bf16's rate, except attention's first
product where it is quantized, and everything else at int8's. The work of a forward pass is counted
from the published configurations, T5's for a prompt of 20 tokens.
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
class Work:
    """A component's work in one call, in 10⁹ multiply-adds.

    ``total`` is all of it, ``not_int8`` the part that quantization leaves in bf16.
    """

    total: float
    not_int8: float = 0.0


COMPONENTS = {
    "unet 64": Work(794, 28),
    "unet 128": Work(3381, 442),
    "transformer 1024": Work(618, 68 / 2 + 34),
    "transformer 4096": Work(3255, 1082 / 2 + 34),
    "prior": Work(577, 37 / 2),
    "decoder": Work(1172, 250 / 2),
    "vqgan": Work(1086, 1086),
    "vae 512": Work(1257, 1257),
    "tiny vae 512": Work(71, 71),
    "tiny vae 1024": Work(283, 283),
    "t5": Work(93),
    "clips": Work(49 + 7),
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


def multiply_add_rate(kind: str) -> float:
    """The highest rate, in multiply-adds per second, of several products of SIDE × SIDE matrices."""
    rng = np.random.default_rng(0)
    parameter = ops.parameter([SIDE, SIDE], np.float32)
    weights: Any = ops.constant(rng.standard_normal((SIDE, SIDE)).astype(np.float32))
    rows: Any = parameter
    if kind == "int8":
        low, high = ops.constant(np.float32(-4)), ops.constant(np.float32(4))
        rows = ops.fake_quantize(parameter, low, high, low, high, 256)
        numbers = ops.constant(rng.integers(-127, 128, (SIDE, SIDE)).astype(np.int8))
        weights = ops.multiply(ops.convert(numbers, "f32"), ops.constant(np.full((SIDE, 1), 0.01, np.float32)))
    model = ov.Model([ops.matmul(rows, weights, transpose_a=False, transpose_b=True)], [parameter])
    precision = "f32" if kind == "f32" else "bf16"
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cpu_count(), "NUM_STREAMS": 1}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    values = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        request.infer([values], share_inputs=True, share_outputs=True)
        seconds.append(time.perf_counter() - start)
    return SIDE**3 / min(seconds)


def floors(rates: dict[str, float]) -> dict[str, dict[str, float]]:
    """Least seconds of each workload: all in bf16, and with int8 where quantization uses it."""
    seconds = {}
    for name, calls in WORKLOADS.items():
        work = [(COMPONENTS[component], count) for component, count in calls.items()]
        total = sum(each.total * count for each, count in work) * 1e9
        not_int8 = sum(each.not_int8 * count for each, count in work) * 1e9
        int8 = not_int8 / rates["bf16"] + (total - not_int8) / rates["int8"]
        seconds[name] = {"bf16": total / rates["bf16"], "int8": int8}
    return seconds


def main() -> None:
    """Measure the rates and print the floors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rates = {kind: multiply_add_rate(kind) for kind in ("f32", "bf16", "int8")}
    workloads = floors(rates)
    if arguments.json:
        record = {"processor": processor(), "cores": cpu_count(), "rates": rates, "floors": workloads}
        print(json.dumps(record, indent=2))
        return
    summary = ", ".join(f"{kind} {each / 1e12:.2f}" for kind, each in rates.items())
    print(f"{cpu_count()} cores of {processor()}; 10^12 multiply-adds a second: {summary}\n")
    print("| | all bf16 | int8 and bf16 |\n| --- | --- | --- |")
    for name, seconds in workloads.items():
        print(f"| {name} | {seconds['bf16']:.1f} s | {seconds['int8']:.1f} s |")


if __name__ == "__main__":
    main()
