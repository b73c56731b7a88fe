"""Tensors that are a part of a stored one, or stand in another order than it.

Files of the authors' layouts store some tensors otherwise than our networks take them. Rows of a
stored tensor, and a stored tensor of another shape, stay mapped from the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import DamagedModelError
from vinograph.models.parts import CheckpointTensor
from vinograph.schema import label


@dataclass(frozen=True)
class TensorView:
    """A tensor of that ``shape``, whose values ``take`` gets from those of the ``stored`` one."""

    stored: CheckpointTensor
    shape: tuple[int, ...]
    take: Callable[[NDArray[Any]], NDArray[Any]]

    @property
    def file(self) -> Path:
        """The file that holds the tensor."""
        return self.stored.file

    @property
    def dtype(self) -> str:
        """The type that the tensor is stored in."""
        return self.stored.dtype

    def array(self) -> NDArray[Any]:
        """Its values, mapped from the file unless they stand there in another order."""
        return self.take(self.stored.array())


def row_thirds(name: str, tensor: CheckpointTensor) -> tuple[TensorView, TensorView, TensorView]:
    """The three thirds of a tensor's rows, as queries, keys and values are stored together.

    Raises:
        DamagedModelError: its rows are no multiple of three.
    """
    shape = tuple(tensor.shape)
    if not shape or shape[0] % 3:
        raise DamagedModelError(
            f"{tensor.file} is damaged: the tensor {label(name)} of shape {list(shape)} has no thirds of rows"
        )
    count = shape[0] // 3
    first, second, third = (_rows(tensor, begin * count, (begin + 1) * count) for begin in range(3))
    return first, second, third


def _rows(tensor: CheckpointTensor, begin: int, end: int) -> TensorView:
    return TensorView(tensor, (end - begin, *tensor.shape[1:]), lambda array: array[begin:end])


def transposed(tensor: CheckpointTensor) -> TensorView:
    """A tensor with its dimensions in the opposite order. Its values are copied when they are used."""
    return TensorView(tensor, tuple(tensor.shape)[::-1], lambda array: np.ascontiguousarray(array.T))


def without_ones(name: str, tensor: CheckpointTensor, dimensions: int = 2) -> TensorView:
    """A tensor of ``dimensions``, without the ones that follow: a 1×1 convolution's as a matrix.

    Raises:
        DamagedModelError: other dimensions follow.
    """
    shape = tuple(tensor.shape)
    if math.prod(shape[dimensions:]) != 1:
        raise DamagedModelError(
            f"{tensor.file} is damaged: the tensor {label(name)} of shape {list(shape)} is no 1×1 convolution"
        )
    kept = shape[:dimensions]
    return TensorView(tensor, kept, lambda array: array.reshape(kept))
