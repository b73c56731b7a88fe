"""Where a component's time goes: seconds of one call by kind of layer, as OpenVINO's own counters have them.

    python benchmarks/layers.py full/sdxl-f16 full/sdxl-full --component unet

Each bundle's component gets what the first call in a drawing of the first bundle gets, at that bundle's own size. The
counters make a call a little slower. Bundles are measured one after the other, each median of a few calls.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import openvino as ov
from quantization import Values, first_calls  # a script beside this one

from vinograph.bundle import Bundle
from vinograph.runtime import cpu_count

RUNS = 3


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--component", required=True)
    parser.add_argument("--least", type=float, default=0.01, help="share of the time below which a kind isn't shown")
    arguments = parser.parse_args()
    bundles = [Bundle.open(each) for each in arguments.bundles]
    inputs = first_calls(bundles[0], (arguments.component,))[arguments.component]
    measured = [layers(each, arguments.component, inputs) for each in bundles]
    wholes = [sum(each.values()) for each in measured]
    kinds = sorted(
        {kind for each in measured for kind in each}, key=lambda kind: -max(m.get(kind, 0) for m in measured)
    )
    print("| kind of layer | " + " | ".join(each.path.name for each in bundles) + " |")
    print("| --- " * (1 + len(bundles)) + "|")
    for kind in kinds:
        seconds = [each.get(kind, 0.0) for each in measured]
        if any(each >= arguments.least * whole for each, whole in zip(seconds, wholes, strict=True)):
            print(f"| {kind} | " + " | ".join(f"{each:.3f} s" for each in seconds) + " |")
    print("| all | " + " | ".join(f"{each:.3f} s" for each in wholes) + " |")


if __name__ == "__main__":
    main()
