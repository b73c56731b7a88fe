"""Graphs that are called in turns, so that a noisy moment spoils none of them alone."""

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


def component(model: str, name: str) -> tuple[Path, dict[str, Any]]:
    """The file of a model's component, and what one step of a drawing gives it."""
    bundle = catalog.find(model)
    if not isinstance(bundle, Bundle):
        raise SystemExit(f"{model} is a checkpoint, which has no file of a graph: vinograph convert {model} BUNDLE")
    return bundle.path / bundle.manifest.components[name].file, dict(first_calls(bundle, (name,))[name])


def compiled(graph: ov.Model, threads: int | None = None) -> ov.InferRequest:
    """A request of the graph as a drawing compiles it for the CPU, or with so many threads."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads or cpu_count()}
    return ov.Core().compile_model(graph, "CPU", settings).create_infer_request()


def seconds(requests: Mapping[str, tuple[ov.InferRequest, Any]], runs: int) -> dict[str, float]:
    """The median seconds of a call of each, with its inputs, after a first one that doesn't count."""
    for request, given in requests.values():
        request.infer(given)
    taken: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(runs):
        for name, (request, given) in requests.items():
            start = time.perf_counter()
            request.infer(given)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in taken.items()}
