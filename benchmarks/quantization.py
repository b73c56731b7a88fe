"""Measures what quantization costs: sizes, each component's PSNR to f32, and the time of layers.

    python benchmarks/quantization.py sdxl-f16 sdxl-full
    python benchmarks/quantization.py sdxl-f16 sdxl-full --layers unet

PSNR is of a component's outputs to those that SOURCE computes in f32, with the range of that output
as the peak. The inputs are those of the component's first call when SOURCE generates a picture at
its native size. For comparison, the table has the PSNR of SOURCE in the precision that the
processor chooses, which generation loses anyway.

With ``--layers COMPONENT``, the table has the seconds of one call by kind of layer instead. They
come from OpenVINO's performance counters, which make a call a little slower.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from vinograph.models.bundle import Bundle
from vinograph.quantize.speed import first_calls
from vinograph.resources import cpu_count
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile

Inputs = Mapping[str, NDArray[Any]]
RUNS = 3


def outputs_of(bundle: Bundle, name: str, precision: str, inputs: Inputs) -> list[NDArray[np.float32]]:
    """The outputs of the component ``name`` for ``inputs``, in the order of their names."""
    component = bundle.manifest.components[name]
    session = Session(IrFile(name, bundle.path / component.file, component.f16_safe), "CPU", precision)
    outputs = session(inputs)
    session.release()
    return [outputs[each] for each in sorted(outputs)]


def output_psnr(exact: list[NDArray[np.float32]], other: list[NDArray[np.float32]]) -> float:
    """The PSNR of all outputs together in decibels; the peak of each is its range in ``exact``."""
    errors = [float(np.mean(((a - b) / np.ptp(a)) ** 2, dtype=np.float64)) for a, b in zip(exact, other, strict=True)]
    mean = sum(errors) / len(errors)
    return -10 * math.log10(mean) if mean > 0 else math.inf


def megabytes(bundle: Bundle, name: str) -> float:
    """The size of a component's weights in megabytes."""
    return bundle.manifest.files[bundle.manifest.components[name].file.removesuffix(".xml") + ".bin"].size / 1e6


def layer_seconds(bundle: Bundle, name: str, inputs: Inputs) -> dict[str, float]:
    """Median seconds by kind of layer and the type that it computes in."""
    core = ov.Core()
    model = core.read_model(bundle.path / bundle.manifest.components[name].file)
    model.reshape({key: list(value.shape) for key, value in inputs.items()})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": cpu_count(),
        "PERF_COUNT": True,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.infer(dict(inputs))
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0] * RUNS)
    for run in range(RUNS):
        request.infer(dict(inputs))
        for each in request.profiling_info:
            if each.real_time:
                kind = f"{each.node_type} ({each.exec_type.rsplit('_', 1)[-1]})"
                seconds[kind][run] += each.real_time.total_seconds()
    return {kind: statistics.median(runs) for kind, runs in seconds.items()}


def show_layers(bundles: Sequence[Bundle], name: str) -> None:
    """Print the seconds by kind of layer, without kinds that take less than 1% of the time."""
    inputs = first_calls(bundles[0], (name,))[name]
    measured = [layer_seconds(each, name, inputs) for each in bundles]
    totals = [sum(each.values()) for each in measured]
    kinds = sorted(
        {kind for each in measured for kind in each}, key=lambda kind: -max(m.get(kind, 0) for m in measured)
    )
    print("| kind of layer | " + " | ".join(each.path.name for each in bundles) + " |")
    print("| --- " * (1 + len(bundles)) + "|")
    for kind in kinds:
        seconds = [each.get(kind, 0.0) for each in measured]
        if any(each >= total / 100 for each, total in zip(seconds, totals, strict=True)):
            print(f"| {kind} | " + " | ".join(f"{each:.3f} s" for each in seconds) + " |")
    print("| all | " + " | ".join(f"{each:.3f} s" for each in totals) + " |")


def main() -> None:
    """Print the table of components, or with --layers that of one component's layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--layers", metavar="COMPONENT")
    arguments = parser.parse_args()
    source, target = Bundle.open(arguments.source), Bundle.open(arguments.target)
    if arguments.layers:
        show_layers((source, target), arguments.layers)
        return
    print("| component | MB before | MB after | ratio | PSNR before, dB | PSNR after, dB |\n" + "| --- " * 6 + "|")
    for name, inputs in first_calls(source, output_type="pil").items():
        exact = outputs_of(source, name, "f32", inputs)
        before, after = (output_psnr(exact, outputs_of(each, name, "auto", inputs)) for each in (source, target))
        sizes = [megabytes(each, name) for each in (source, target)]
        cells = [f"{sizes[0]:.1f}", f"{sizes[1]:.1f}", f"{sizes[0] / sizes[1]:.3f}", f"{before:.1f}", f"{after:.1f}"]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
