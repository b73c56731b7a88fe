"""Times graphs that are called in turns, so that a noisy moment spoils none of them alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from vinograph.models import catalog
from vinograph.models.bundle import Bundle
from vinograph.quantize.speed import first_calls
from vinograph.resources import cpu_count


def load_component(model: str, name: str) -> tuple[Path, dict[str, Any]]:
    """The file of a bundle's component, and its inputs in a generation's first call."""
    bundle = catalog.find(model)
    if not isinstance(bundle, Bundle):
        raise SystemExit(f"{model} is a checkpoint, which has no file of a graph: vinograph convert {model} BUNDLE")
    return bundle.path / bundle.manifest.components[name].file, dict(first_calls(bundle, (name,))[name])


def compile_graph(graph: ov.Model, threads: int | None = None) -> ov.InferRequest:
    """An infer request of ``graph``, compiled as a pipeline does, or with so many threads."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads or cpu_count()}
    return ov.Core().compile_model(graph, "CPU", settings).create_infer_request()


def median_seconds(requests: Mapping[str, tuple[ov.InferRequest, Any]], runs: int) -> dict[str, float]:
    """The median seconds of a call of each request with its inputs, after one call to warm up."""
    for request, inputs in requests.values():
        request.infer(inputs)
    seconds: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(runs):
        for name, (request, inputs) in requests.items():
            start = time.perf_counter()
            request.infer(inputs)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}
