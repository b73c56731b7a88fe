"""The precision that "auto" stands for on the CPU: the faster one, which is measured once.

OpenVINO computes in bf16 wherever the processor has instructions for it. On some processors those
are slower than the ones for f32. An example are virtual machines that hide the matrix unit (AMX) of
the processor below.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache as once
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13

from vinograph.runtime.cache import Cache
from vinograph.runtime.devices import core, machine, processor, processor_flags
from vinograph.runtime.tuning import sha256_of_json

_ROWS, _WIDTH = 256, 512  # a product in f32 takes about a millisecond with one thread
_RUNS = 10
_SECTION = "precisions"  # of the cache's file of what was measured
_CLEARLY_FASTER = 0.9  # f32 has to take at most this part of the time, as it needs twice the memory


@dataclass(frozen=True)
class Comparison:
    """Seconds of a matrix product in f32, and in the precision that OpenVINO computes in by itself."""

    precision: str
    f32_seconds: float
    own_seconds: float

    @property
    def automatic_precision(self) -> str:
        """The precision that "auto" stands for."""
        return "f32" if self.f32_seconds <= _CLEARLY_FASTER * self.own_seconds else self.precision

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON."""
        return {"precision": self.precision, "f32_seconds": self.f32_seconds, "own_seconds": self.own_seconds}

    @classmethod
    def from_json(cls, record: Any) -> Comparison | None:
        """The comparison of a record; None where there is none, or it is damaged."""
        match record:
            case {"precision": str(name), "f32_seconds": float(f32), "own_seconds": float(own)} if f32 > 0 and own > 0:
                return cls(name, f32, own)
        return None


@once
def comparison() -> Comparison | None:
    """The speeds of this machine's precisions; None if OpenVINO computes in f32 by itself.

    They are measured by the first process, and kept in the folder of the cache.
    """
    own = machine().precision
    if own == "f32":
        return None
    # Virtual machines with different features often have the same name.
    cache, key = Cache(), sha256_of_json("precisions", own, processor(), processor_flags(), ov.__version__)
    known = _read(cache.records(_SECTION).get(key), own)
    if known is not None:
        return known
    measured = _measure(own)
    # Another process may have measured meanwhile. Its result stays, so that both draw the same.
    kept = cache.remember(key, lambda record: record if _read(record, own) else measured.to_json(), _SECTION)
    return _read(kept, own) or measured


def f32_is_faster() -> bool:
    """Whether the CPU computes faster in f32 than in the precision that OpenVINO chooses."""
    found = comparison()
    return found is not None and found.automatic_precision == "f32"


def _read(record: Any, own: str) -> Comparison | None:
    found = Comparison.from_json(record)
    return found if found is not None and found.precision == own else None


def _measure(own: str) -> Comparison:
    """Time a matrix product with one thread. It is the least of several, as other work only adds."""
    values = np.full((_ROWS, _WIDTH), 0.01, np.float32)
    given = opset13.parameter(list(values.shape), np.float32)
    product = opset13.matmul(given, opset13.constant(np.full((_WIDTH, _WIDTH), 0.01, np.float32)), False, False)
    model = ov.Model([product], [given])
    requests = {
        precision: core()
        .compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1})
        .create_infer_request()
        for precision in ("f32", own)
    }
    seconds: dict[str, list[float]] = {precision: [] for precision in requests}
    for _ in range(_RUNS):
        for precision, request in requests.items():  # in turns, so that other work slows both
            begin = time.perf_counter()
            request.infer([values], share_inputs=True)
            seconds[precision].append(time.perf_counter() - begin)
    return Comparison(own, min(seconds["f32"]), min(seconds[own]))
