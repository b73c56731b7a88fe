"""W + A · B for large matrices, in blocks of rows that stay in the processor's cache.

OpenVINO converts, multiplies and adds. A graph for blocks of one shape takes two thirds of the time
of a graph for any shape. The caller's thread computes a block itself: another one would first have
to wake up, and to fetch the block into its cache.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.runtime.devices import core

Array = NDArray[np.float32]

_BLOCK = 1 << 19  # values; with half as many, calls take a fifth of the time
_ROWS = 16  # that in most models are a whole number of pages of memory
_TYPES = {np.dtype(np.float16): ov.Type.f16, np.dtype(np.float32): ov.Type.f32, np.dtype(np.uint16): ov.Type.bf16}


@dataclass(frozen=True)
class Matrix:
    """A matrix in f32, f16, or bf16 as uint16, which is read in blocks of rows.

    Attributes:
        shape: rows and columns.
        kind: the type.
        read: given a block's first row and a buffer of the block's shape, returns the block, in the
            buffer or elsewhere.
    """

    shape: tuple[int, int]
    kind: np.dtype[Any]
    read: Callable[[int, NDArray[Any]], NDArray[Any]]


def in_memory(array: NDArray[Any]) -> Matrix:
    """A contiguous array [m, n] as a matrix."""
    return Matrix((array.shape[0], array.shape[1]), array.dtype, lambda row, block: array[row : row + len(block)])


@dataclass(frozen=True)
class _Shape:
    """The shapes of a block and its factors: [rows, width], [rows, rank] and [rank, width]."""

    rows: int
    width: int
    rank: int
    kind: np.dtype[Any]


@dataclass(frozen=True)
class _Kernel:
    """What computes blocks of one shape, on one thread at a time.

    ``buffer`` is for what it reads, ``result`` has the sums.
    """

    request: ov.InferRequest
    buffer: NDArray[Any]
    result: NDArray[Any]


class LowRankSums:
    """Sums of matrices and products of two factors, which several threads may compute at once.

    What is compiled belongs to this object. It takes a few megabytes for each shape and thread.
    """

    def __init__(self) -> None:
        self._idle: defaultdict[_Shape, deque[_Kernel]] = defaultdict(deque)

    def blocks(self, base: Matrix, left: Array, right: Array) -> Iterator[tuple[int, NDArray[Any]]]:
        """Blocks of rows of base + left · right, each with the number of its first row.

        A block is in the type of ``base``, or in f32 if that is bf16. The next block takes its
        place. The last two may have rows in common.

        Args:
            base: a matrix [m, n].
            left: a matrix [m, r].
            right: a matrix [r, n].
        """
        rows, width = base.shape
        height = self._height(rows, width, left.shape[1], base.kind)
        kind, shape, left = _TYPES[base.kind], ov.Shape([height, width]), np.ascontiguousarray(left)
        with self._kernel(_Shape(height, width, left.shape[1], base.kind)) as kernel:
            request = kernel.request
            request.set_input_tensor(2, ov.Tensor(np.ascontiguousarray(right), shared_memory=True))
            for row in range(0, rows, height):
                begin = min(row, rows - height)
                request.set_input_tensor(0, ov.Tensor(base.read(begin, kernel.buffer), shape, kind))
                request.set_input_tensor(1, ov.Tensor(left[begin : begin + height], shared_memory=True))
                request.infer(share_outputs=True)
                yield begin, kernel.result

    def _height(self, rows: int, width: int, rank: int, kind: np.dtype[Any]) -> int:
        """The rows of a block: those of a kernel that there is, if they do about as well as the best."""
        best = _block_height(rows, width)
        for shape in list(self._idle):
            same = shape == _Shape(shape.rows, width, rank, kind)
            if same and rows % shape.rows == 0 and 2 * shape.rows >= best:
                return shape.rows
        return best

    @contextmanager
    def _kernel(self, shape: _Shape) -> Iterator[_Kernel]:
        """A kernel for this thread alone, within the block."""
        idle = self._idle[shape]
        try:
            kernel = idle.pop()
        except IndexError:
            kernel = _compiled(shape)
        yield kernel
        idle.append(kernel)


def _block_height(rows: int, width: int) -> int:
    """The rows of a block: such that few are in two blocks, and most blocks are whole pages."""
    count = min(-(-rows * width // _BLOCK), rows)
    height = -(-rows // count)
    return min(rows, -(-height // _ROWS) * _ROWS) if height >= _ROWS else height


def _result_type(kind: ov.Type) -> ov.Type:
    """The type of sums: OpenVINO would round those in bf16 twice."""
    return ov.Type.f32 if kind == ov.Type.bf16 else kind


def _compiled(shape: _Shape) -> _Kernel:
    kind = _TYPES[shape.kind]
    base = opset.parameter([shape.rows, shape.width], kind)
    left, right = (
        opset.parameter(list(each), ov.Type.f32) for each in ((shape.rows, shape.rank), (shape.rank, shape.width))
    )
    total = opset.add(opset.convert(base, "f32"), opset.matmul(left, right, False, False))
    model = ov.Model([opset.convert(total, _result_type(kind))], [base, left, right])
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,  # with more, threads of OpenVINO's own compute
        "ENABLE_CPU_PINNING": False,
    }
    request = core().compile_model(model, "CPU", settings).create_infer_request()
    result = np.empty((shape.rows, shape.width), _result_type(kind).to_dtype())
    request.set_output_tensor(0, ov.Tensor(result, ov.Shape(result.shape), _result_type(kind)))
    return _Kernel(request, np.empty(result.shape, shape.kind), result)
