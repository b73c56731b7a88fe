"""The tensors of a checkpoint, and their values in f32 and f16."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vinograph.runtime.half import convert, widened

Array = NDArray[Any]

_LARGEST_F16 = 65504.0
_VALUES_AT_ONCE = 1 << 18  # that are converted together, so that they stay in the processor's cache


class StoredTensor(Protocol):
    """One tensor of a checkpoint, which is read when its values are needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""

    @property
    def dtype(self) -> str:
        """Its type as safetensors names it: "F32", "F16", "BF16", "I64", …"""

    def array(self) -> Array:
        """Its values, mapped from the file where that is possible.

        Values in BF16 come as uint16, and values in 8 bits as the floating-point numbers that they
        stand for.
        """


def array_of(tensor: StoredTensor) -> Array:
    """The tensor's values."""
    return tensor.array()


def in_f32(tensor: StoredTensor) -> NDArray[np.float32]:
    """A tensor's values in f32; those stored in f32 stay mapped."""
    return as_f32(tensor.array(), tensor.dtype)


def as_f32(array: Array, dtype: str) -> NDArray[np.float32]:
    """Values of a stored type, as :meth:`StoredTensor.array` gives them, in f32."""
    if dtype == "BF16":  # the upper half of an f32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return widened(array) if array.dtype == np.float16 else array.astype(np.float32, copy=False)


def rows_in_f32(tensor: StoredTensor) -> Iterator[NDArray[np.float32]]:
    """A matrix in blocks of rows, in f32, which are in the processor's cache.

    The next block takes the place of the one before.
    """
    array, height = tensor.array(), max(1, _VALUES_AT_ONCE // math.prod(tensor.shape[1:]))
    buffer = np.empty((min(height, len(array)), *array.shape[1:]), np.float32)  # new memory takes longer than this all
    for row in range(0, len(array), height):
        block = array[row : row + height]
        if block.dtype == np.float16:
            convert(block, buffer[: len(block)])
            yield buffer[: len(block)]
        else:
            yield as_f32(block, tensor.dtype)


def _pieces(array: Array) -> Iterable[Array]:
    """Consecutive pieces of a contiguous array, flattened."""
    flat = array.reshape(-1)
    return (flat[begin : begin + _VALUES_AT_ONCE] for begin in range(0, flat.size, _VALUES_AT_ONCE))


def fits_f16(values: Array) -> bool:
    """Whether f16 holds all values, none of which is infinite."""
    return all(bool(piece.max() <= _LARGEST_F16 and piece.min() >= -_LARGEST_F16) for piece in _pieces(values))


def copy_into(values: Array, into: Array) -> None:
    """Copy values piece by piece, converting them to the type of ``into``."""
    for source, target in zip(_pieces(values), _pieces(into), strict=True):
        if source.dtype == np.float32 and target.dtype == np.float16:
            convert(source, target)
        else:
            target[...] = source
