"""Counts what the server does, for Prometheus.

No label comes from a client, so that their number is bounded: routes are templates, methods and
models are those that the server has.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from vinograph.serve.contract import ModelInfo
from vinograph.serve.resident import resident_memory

CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE")
_OTHER = "other"
_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600)


class Measured(Protocol):
    """What is read of the service when the metrics are asked for."""

    @property
    def waiting(self) -> Sequence[Any]:
        """The jobs in the queue."""
        ...

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        ...

    @property
    def under_way_count(self) -> int:
        """The number of jobs that are being drawn."""
        ...

    @property
    def worker_memory(self) -> int:
        """Bytes that the processes that draw have resident."""
        ...

    async def models(self) -> Sequence[ModelInfo]:
        """All models."""
        ...


class Metrics:
    """The server's counters, each in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each of ours, of which nobody needs one
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "vinograph_requests", "HTTP requests", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "vinograph_request_seconds",
            "seconds from a request to the end of its response",
            ("method", "route"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._waited = Histogram(
            "vinograph_waited_seconds", "seconds of jobs in the queue", buckets=_SECONDS, registry=registry
        )
        self._drawn = Histogram(
            "vinograph_drawn_seconds",
            "seconds of drawing, by stage",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._steps = Counter("vinograph_steps", "denoising steps", registry=registry)
        self._cancelled = Counter("vinograph_cancelled", "jobs cancelled by their clients", registry=registry)
        self._rejected = Counter(
            "vinograph_rejected", "jobs that were not taken or dropped", ("reason",), registry=registry
        )
        self._add_gauges(registry)

    def _add_gauges(self, registry: CollectorRegistry) -> None:
        self._waiting = Gauge("vinograph_queue_depth", "jobs that wait", registry=registry)
        self._running = Gauge("vinograph_running", "jobs that are being drawn", registry=registry)
        self._ready = Gauge("vinograph_ready", "whether new work is taken", registry=registry)
        self._memory = Gauge("vinograph_resident_memory_bytes", "resident memory", ("process",), registry=registry)
        self._models = Gauge("vinograph_model_loaded", "whether a model is loaded", ("model",), registry=registry)
        self._usable = Gauge("vinograph_model_usable", "whether a model can be used", ("model",), registry=registry)
        build = Gauge("vinograph_build_info", "versions", ("version", "openvino"), registry=registry)
        build.labels(version("vinograph"), version("openvino")).set(1)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; ``route`` is a template, empty where there is none."""
        method = method if method in METHODS else _OTHER
        self._requests.labels(method, route or _OTHER, str(status)).inc()
        self._seconds.labels(method, route or _OTHER).observe(seconds)

    def waited(self, seconds: float) -> None:
        """A job waited so long until it was begun."""
        self._waited.observe(seconds)

    def stage(self, model: str, stage: str, seconds: float) -> None:
        """A job spent so long in a stage."""
        self._drawn.labels(model, stage).observe(seconds)

    def step(self) -> None:
        """A step was done."""
        self._steps.inc()

    def cancelled(self) -> None:
        """A job was cancelled by its client."""
        self._cancelled.inc()

    def rejected(self, reason: str) -> None:
        """A job was not taken, or was dropped."""
        self._rejected.labels(reason).inc()

    async def text(self, service: Measured) -> bytes:
        """All metrics as Prometheus reads them, with what the service is doing now."""
        self._waiting.set(len(service.waiting))
        self._running.set(service.under_way_count)
        self._ready.set(service.ready)
        for model in await service.models() if service.ready else ():  # they aren't known before
            self._models.labels(model.name).set(model.loaded)
            self._usable.labels(model.name).set(not model.problem)
        self._memory.labels("server").set(resident_memory(os.getpid()))
        self._memory.labels("worker").set(service.worker_memory)
        return generate_latest(self._registry)
