"""Merging: weights with the differences of adapters added."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.adapters.kinds import Difference, LowRank
from vinograph.errors import RequestError
from vinograph.models.safetensors import TensorRecord
from vinograph.networks.graph import Allocate
from vinograph.networks.stored import StoredTensor, in_f32
from vinograph.runtime import low_rank
from vinograph.runtime.low_rank import LowRankSums, Matrix
from vinograph.runtime.scratch import Place, in_memory

Array = NDArray[np.float32]

Room = Callable[[tuple[int, ...], "np.dtype[Any]"], Place]
"""Gives room for a merged array of a shape and type."""

_KINDS: Mapping[str, Any] = MappingProxyType({"F16": np.float16, "F64": np.float64})
_BLOCK_KINDS: Mapping[str, Any] = MappingProxyType({"F16": np.float16, "F32": np.float32, "BF16": np.uint16})
_F16_INFINITY, _F16_MINUS_INFINITY = 0x7C00, 0xFC00
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
        return self.difference.factors(self.strength, self.index, self.count)

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
    """A tensor of a checkpoint with the differences of adapters added, in its own type.

    ``sums`` computes large products, and ``room`` holds what is merged.
    """

    name: str
    stored: StoredTensor
    terms: tuple[Term, ...]
    room: Room
    sums: LowRankSums

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

    @property
    def is_large_product(self) -> bool:
        """Whether it is merged in blocks: all differences are products, and their sum is large."""
        return (
            self.dtype in _BLOCK_KINDS
            and math.prod(self.shape) >= _LARGE
            and all(isinstance(term.difference, LowRank) for term in self.terms)
        )

    def array(self) -> NDArray[Any]:
        """The merged values in the tensor's type: BF16 as uint16, and 8 bits as f32.

        Raises:
            RequestError: they exceed the type's range.
        """
        if self.is_large_product:
            place = self.place()
            self.merge_into(place)
            return place.array
        found = merged(self.stored, self.terms)
        if self.dtype == "F16":
            self._check(found)
        return stored_in(self.room, found)

    def place(self) -> Place:
        """Room for the values of a large product."""
        return self.room(tuple(self.shape), np.dtype(_BLOCK_KINDS[self.dtype]))

    def merge_into(self, place: Place) -> None:
        """Write the values of a large product to ``place``.

        Raises:
            RequestError: they exceed the type's range.
        """
        up, down = _factors(self.terms)
        width = down.shape[1]
        with _matrix(self.stored, (len(up), width)) as base:
            for row, block in self.sums.blocks(base, up, down):
                if self.dtype == "F16":
                    self._check(block)
                place.write(row * width, _to_bf16(block) if self.dtype == "BF16" else block)

    def _check(self, values: NDArray[np.float16]) -> None:
        if not _fits_f16(values):
            raise RequestError(
                f"the adapter {' and '.join(sorted({each.adapter for each in self.terms}))} makes {self.name} exceed "
                "the range of f16, in which the model stores it: give a smaller weight"
            )


@contextmanager
def _matrix(stored: StoredTensor, shape: tuple[int, int]) -> Iterator[Matrix]:
    """A tensor as a matrix that is read in blocks, from its file where that is known."""
    if not isinstance(stored, TensorRecord):
        yield low_rank.in_memory(stored.array().reshape(shape))
        return
    with stored.reading() as fill:

        def read(row: int, block: NDArray[Any]) -> NDArray[Any]:
            fill(row * shape[1], block)
            return block

        yield Matrix(shape, np.dtype(_BLOCK_KINDS[stored.dtype]), read)


def _factors(terms: Sequence[Term]) -> tuple[Array, Array]:
    """Two matrices whose product is the sum of all terms, each of which is a product."""
    factors = [found for term in terms if (found := term.factors()) is not None]
    if len(factors) == 1:
        return factors[0]
    return np.concatenate([up for up, _ in factors], axis=1), np.concatenate([down for _, down in factors])


def merged(stored: StoredTensor, terms: Sequence[Term]) -> NDArray[Any]:
    """W + the sum of all terms, in an array of its own in the type of ``stored``.

    A weight in 8 bits comes in f32.
    """
    weight = in_f32(stored)
    total = weight + difference_of(terms, weight)
    return total if stored.dtype in _F8 else as_stored(total, stored.dtype)


def as_stored(values: Array, dtype: str) -> NDArray[Any]:
    """Values in f32 as an array of a stored type; bfloat16 as uint16."""
    if dtype == "BF16":
        return _to_bf16(values)
    with np.errstate(over="ignore"):
        return values.astype(_KINDS.get(dtype, np.float32), copy=False)


def room_of(allocate: Allocate) -> Room:
    """Room in the arrays that ``allocate`` makes."""
    return lambda shape, kind: in_memory(allocate(shape, kind))


def stored_in(room: Room, array: NDArray[Any]) -> NDArray[Any]:
    """An array equal to ``array``, in ``room``."""
    place = room(array.shape, array.dtype)
    place.write(0, array)
    return place.array


def _to_bf16(values: Array) -> NDArray[np.uint16]:
    """The upper halves of f32, rounded to the nearest and to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _fits_f16(values: NDArray[np.float16]) -> bool:
    """Whether no value is infinite or NaN.

    Their bits as whole numbers are compared, which is quicker: those of the positive values with a
    sign, and those of the negative values without.
    """
    if not values.size:
        return True
    highest, lowest = int(values.view(np.int16).max()), int(values.view(np.uint16).max())
    return highest < _F16_INFINITY and lowest < _F16_MINUS_INFINITY
