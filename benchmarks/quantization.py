"""What a quantization costs: sizes, each component's distance to f32, and where a call's time goes.

    python benchmarks/quantization.py sdxl-f16 sdxl-full
    python benchmarks/quantization.py sdxl-f16 sdxl-full --layers unet

With ``--layers COMPONENT``, the seconds of one call by kind of layer are told, as OpenVINO's own counters have them,
which make a call a little slower.

Distances are of components, each given what the first call of it is given in a drawing at the bundle's native size
by SOURCE: the PSNR of its output to what SOURCE computes in f32, with the range of that output as the peak. Beside that
of TARGET stands that of SOURCE in the precision that the processor chooses, which is what drawing loses anyway.
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

Values = Mapping[str, NDArray[Any]]
RUNS = 3


def computed(bundle: Bundle, name: str, precision: str, inputs: Values) -> list[NDArray[np.float32]]:
    """A component's outputs."""
    component = bundle.manifest.components[name]
    session = Session(IrFile(name, bundle.path / component.file, component.f16_safe), "CPU", precision)
    outputs = session(inputs)
    session.release()
    return [outputs[each] for each in sorted(outputs)]


def decibels(one: list[NDArray[np.float32]], other: list[NDArray[np.float32]]) -> float:
    """The PSNR of the outputs together; the peak of each is its range."""
    errors = [float(np.mean(((a - b) / np.ptp(a)) ** 2, dtype=np.float64)) for a, b in zip(one, other, strict=True)]
    mean = sum(errors) / len(errors)
    return -10 * math.log10(mean) if mean > 0 else math.inf


def megabytes(bundle: Bundle, name: str) -> float:
    """The size of a component's weights."""
    return bundle.manifest.files[bundle.manifest.components[name].file.removesuffix(".xml") + ".bin"].size / 1e6


def layers(bundle: Bundle, name: str, inputs: Values) -> dict[str, float]:
    """Seconds by kind of layer and the type that it computes in."""
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
    found: dict[str, list[float]] = defaultdict(lambda: [0.0] * RUNS)
    for run in range(RUNS):
        request.infer(dict(inputs))
        for each in request.profiling_info:
            if each.real_time:
                kind = f"{each.node_type} ({each.exec_type.rsplit('_', 1)[-1]})"
                found[kind][run] += each.real_time.total_seconds()
    return {kind: statistics.median(runs) for kind, runs in found.items()}


def show_layers(bundles: Sequence[Bundle], name: str) -> None:
    """The table of seconds by kind of layer, without those that take less than a hundredth of the time."""
    inputs = first_calls(bundles[0], (name,))[name]
    measured = [layers(each, name, inputs) for each in bundles]
    wholes = [sum(each.values()) for each in measured]
    kinds = sorted(
        {kind for each in measured for kind in each}, key=lambda kind: -max(m.get(kind, 0) for m in measured)
    )
    print("| kind of layer | " + " | ".join(each.path.name for each in bundles) + " |")
    print("| --- " * (1 + len(bundles)) + "|")
    for kind in kinds:
        seconds = [each.get(kind, 0.0) for each in measured]
        if any(each >= whole / 100 for each, whole in zip(seconds, wholes, strict=True)):
            print(f"| {kind} | " + " | ".join(f"{each:.3f} s" for each in seconds) + " |")
    print("| all | " + " | ".join(f"{each:.3f} s" for each in wholes) + " |")


def main() -> None:
    """Print the table that was asked for."""
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
        exact = computed(source, name, "f32", inputs)
        before, after = (decibels(exact, computed(each, name, "auto", inputs)) for each in (source, target))
        sizes = [megabytes(each, name) for each in (source, target)]
        cells = [f"{sizes[0]:.1f}", f"{sizes[1]:.1f}", f"{sizes[0] / sizes[1]:.3f}", f"{before:.1f}", f"{after:.1f}"]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
