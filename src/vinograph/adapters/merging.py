"""Merging: weights with the differences of adapters added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.adapters.kinds import Difference, LowRank
from vinograph.errors import RequestError
from vinograph.networks.graph import Allocate, StoredTensor, in_f32
from vinograph.runtime.low_rank import add_product

Array = NDArray[np.float32]

Keep = Callable[[NDArray[Any]], NDArray[Any]]
"""Stores a merged array: it returns an equal one."""

_KINDS: Mapping[str, Any] = MappingProxyType({"F16": np.float16, "F64": np.float64})
_F16_INFINITY = 0x7C00
_F16_HALF_RANGE = 32752.0
_LARGE = 1 << 16  # values, from which on OpenVINO is quicker than NumPy
_F8 = ("F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class Term:
    """One adapter's share of one weight: strength times a piece of a difference.

    The piece is number ``index`` of ``count`` equal pieces of rows. ``adapter`` names the file.
    """

    adapter: str
    strength: float
    difference: Difference
    index: int = 0
    count: int = 1

    def factors(self) -> tuple[Array, Array] | None:
        """Matrices whose product is the share; None where it isn't one."""
        if not isinstance(self.difference, LowRank):
            return None
        up, down = self.difference.factors()
        rows = len(up) // self.count
        return up[self.index * rows : (self.index + 1) * rows] * np.float32(self.strength), down

    def values(self, weight: Array) -> Array:
        """The share, in the shape of ``weight``."""
        if self.count > 1:
            whole = np.zeros((self.count, *weight.shape), np.float32)
            whole[self.index] = weight
            found = self.difference.compute(whole.reshape(-1, *weight.shape[1:]))
            found = found.reshape(self.count, *weight.shape)[self.index]
        else:
            found = self.difference.compute(weight)
        return found.reshape(weight.shape) * np.float32(self.strength)


def difference_of(terms: Sequence[Term], weight: Array) -> Array:
    """The sum of all terms, each of which is computed from the weight without the others."""
    total = np.zeros(weight.shape, np.float32)
    for term in terms:
        total += term.values(weight)
    return total


@dataclass(frozen=True)
class AdaptedTensor:
    """A tensor of a checkpoint with the differences of adapters added, in its own type."""

    name: str
    stored: StoredTensor
    terms: tuple[Term, ...]
    keep: Keep

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's dimensions."""
        return self.stored.shape

    @property
    def dtype(self) -> str:
        """The type that it is stored in."""
        return self.stored.dtype

    @property
    def file(self) -> Path | None:
        """The file that holds the tensor, if it is known."""
        return getattr(self.stored, "file", None)

    def array(self) -> NDArray[Any]:
        """The merged values in the tensor's type: BF16 as uint16, and 8 bits as f32.

        Raises:
            RequestError: they exceed the type's range.
        """
        found = merged(self.stored, self.terms)
        if self.dtype == "F16" and _may_overflow(self.terms) and not _fits_f16(found):
            raise RequestError(
                f"the adapter {' and '.join(sorted({each.adapter for each in self.terms}))} makes {self.name} exceed "
                "the range of f16, in which the model stores it: give a smaller weight"
            )
        return self.keep(found)


def merged(stored: StoredTensor, terms: Sequence[Term]) -> NDArray[Any]:
    """W + the sum of all terms, in an array of its own in the type of ``stored``.

    A weight in 8 bits comes in f32.
    """
    factors = [term.factors() for term in terms]
    if all(each is not None for each in factors) and stored.dtype in ("F16", "F32"):
        up = np.concatenate([each[0] for each in factors if each], axis=1)
        down = np.concatenate([each[1] for each in factors if each])
        base = stored.array()
        result = np.empty(tuple(stored.shape), base.dtype)
        rows = (len(up), down.shape[1])
        if base.size < _LARGE:
            with np.errstate(over="ignore"):  # it is checked afterwards
                result.reshape(rows)[...] = base.reshape(rows) + up @ down
        else:
            add_product(base.reshape(rows), up, down, result.reshape(rows))
        return result
    weight = in_f32(stored)
    total = weight + difference_of(terms, weight)
    if stored.dtype in _F8:
        return total
    return as_stored(total, stored.dtype)


def as_stored(values: Array, dtype: str) -> NDArray[Any]:
    """Values in f32 as an array of a stored type; bfloat16 as uint16."""
    if dtype == "BF16":
        return _to_bf16(values)
    with np.errstate(over="ignore"):
        return values.astype(_KINDS.get(dtype, np.float32), copy=False)


def copied_by(allocate: Allocate) -> Keep:
    """A function that copies an array into one that ``allocate`` makes."""

    def keep(array: NDArray[Any]) -> NDArray[Any]:
        copy = allocate(array.shape, array.dtype)
        copy[...] = array
        return copy

    return keep


def _to_bf16(values: Array) -> NDArray[np.uint16]:
    """The upper halves of f32, rounded to the nearest and to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _may_overflow(terms: Sequence[Term]) -> bool:
    """Whether a sum of terms may take a weight beyond f16's range.

    No value of a product exceeds the largest row's norm times the largest column's. Weights
    themselves are far below half the range.
    """
    most = 0.0
    for term in terms:
        factors = term.factors()
        if factors is None:
            return True
        left, right = (
            float(np.sqrt(np.square(each).sum(axis).max())) for axis, each in zip((1, 0), factors, strict=True)
        )
        most += left * right
    return not most < _F16_HALF_RANGE


def _fits_f16(values: NDArray[np.float16]) -> bool:
    """Whether no value is infinite or NaN: by their bits, which is quicker than by their values."""
    return not values.size or int((values.view(np.uint16) & 0x7FFF).max()) < _F16_INFINITY
