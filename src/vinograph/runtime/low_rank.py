"""W + A · B for matrices in f32 or f16: OpenVINO converts, multiplies and adds in one pass.

NumPy would take twice as long, most of it for the conversions. In bf16 OpenVINO rounds twice.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.resources import cpu_count
from vinograph.runtime.devices import core

Array = NDArray[np.float32]


def add_product(base: NDArray[Any], left: Array, right: Array, result: NDArray[Any]) -> None:
    """Write base + left · right to ``result``, rounded to its type.

    Args:
        base: a matrix [m, n] in f32 or f16.
        left: a matrix [m, r].
        right: a matrix [r, n].
        result: an array of the type and shape of ``base``.
    """
    kind = ov.Type.f16 if base.dtype == np.float16 else ov.Type.f32
    request = _compiled(kind).create_infer_request()
    request.set_output_tensor(0, ov.Tensor(result, ov.Shape(result.shape), kind))
    given = ov.Tensor(np.ascontiguousarray(base), ov.Shape(base.shape), kind)
    request.infer(
        {0: given, 1: np.ascontiguousarray(left), 2: np.ascontiguousarray(right)}, share_inputs=True, share_outputs=True
    )


@cache
def _compiled(kind: ov.Type) -> ov.CompiledModel:
    sizes = ov.PartialShape([-1, -1])
    base, left, right = (opset.parameter(sizes, each) for each in (kind, ov.Type.f32, ov.Type.f32))
    total = opset.add(opset.convert(base, "f32"), opset.matmul(left, right, False, False))
    model = ov.Model([opset.convert(total, kind)], [base, left, right])
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": cpu_count(),
        "NUM_STREAMS": 1,
    }
    return core().compile_model(model, "CPU", settings)
