"""A bundle's component with adapters: its graph, whose changed weights are replaced when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.adapters.merges import Merges
from vinograph.adapters.merging import Room, Term, as_stored, difference_of, stored_in
from vinograph.adapters.model_weights import FoldedLayer
from vinograph.networks.stored import in_f32
from vinograph.runtime.ir_weights import LowBitWeight, Weight, read_weights, weights_of
from vinograph.runtime.sources import IrFile

Array = NDArray[np.float32]
Terms = Mapping[str, tuple[Term, ...]]

# The rounding of a stored weight, relative to its mean magnitude, by type.
_ROUNDING = {"F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}


@dataclass
class AdaptedIr:
    """A component in OpenVINO's format, of whose weights some are changed.

    Attributes:
        ir: the component as it is.
        terms: what is added, by weight.
        folded: layers that the component holds as one.
        holders: the files (.xml) of the components that hold outer layers of those alone.
        room: holds the arrays of changed weights.
    """

    ir: IrFile
    terms: Terms
    folded: Sequence[FoldedLayer]
    holders: Mapping[str, Path]
    room: Room
    remedy: str = IrFile.remedy
    _changed: dict[str, list[NDArray[Any]]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The component's name."""
        return self.ir.name

    @property
    def f16_safe(self) -> bool:
        """Whether the component can be computed in f16."""
        return self.ir.f16_safe

    @property
    def files(self) -> tuple[Path, ...]:
        """The .xml and the .bin."""
        return self.ir.files

    @property
    def size(self) -> int:
        """The bytes of the component's weights."""
        return self.ir.size

    def read(self) -> Any:
        """The graph with the changed weights, which are computed once and belong to this source."""
        model = self.ir.read()
        weights = weights_of(model)
        if not self._changed:
            self._changed = self._compute(weights)
        for name, arrays in self._changed.items():
            weights[name].put(arrays)
        return model

    def _compute(self, weights: Mapping[str, Weight]) -> dict[str, list[NDArray[Any]]]:
        """The changed weights, each in the arrays that it is stored in."""
        inside = {each for layer in self.folded for each in layer.names()}
        with Merges(self.room) as merges:
            found = {name: self._merged(name, weights[name], merges) for name in self.terms if name not in inside}
        holders: dict[str, Mapping[str, Weight]] = {}
        for layer in self.folded:
            if any(name in self.terms for name in layer.names()):
                if layer.holder not in holders:
                    holders[layer.holder] = read_weights(self.holders[layer.holder])
                found |= self._refolded(layer, weights, holders[layer.holder])
        return found

    def _merged(self, name: str, weight: Weight, merges: Merges) -> list[NDArray[Any]]:
        if isinstance(weight, LowBitWeight):
            return self._kept(weight.quantized(merges.values(name, weight, self.terms[name]), name))
        return [merges.array(merges.tensor(name, weight, self.terms[name]))]

    def _refolded(
        self, layer: FoldedLayer, weights: Mapping[str, Weight], holder: Mapping[str, Weight]
    ) -> dict[str, list[NDArray[Any]]]:
        """The product of two layers A and B, of which the component holds A · B, with both changed.

        B isn't stored: it is solved for. The rounding of what is stored limits how exactly.
        """
        outer, outer_bias, inner, inner_bias = layer.names()
        a, product, folded_bias = in_f32(holder[outer]), in_f32(weights[outer]), in_f32(weights[outer_bias])
        change_a, change_bias = self._change(outer, a), self._change(outer_bias, folded_bias)
        b, b_bias = np.zeros_like(product), np.zeros_like(folded_bias)
        if change_a.any() or inner in self.terms:
            b, b_bias = _solved(holder[outer], a, product, folded_bias - in_f32(holder[outer_bias]))
        changed = a + change_a
        more = change_a @ b + changed @ self._change(inner, b)
        more_bias = change_bias + change_a @ b_bias + changed @ self._change(inner_bias, b_bias)
        return {
            outer: self._stored(outer, weights[outer], np.asarray(product + more, np.float32)),
            outer_bias: self._stored(outer_bias, weights[outer_bias], np.asarray(folded_bias + more_bias, np.float32)),
        }

    def _change(self, name: str, weight: Array) -> Array:
        return difference_of(self.terms.get(name, ()), weight)

    def _stored(self, name: str, weight: Weight, values: Array) -> list[NDArray[Any]]:
        if isinstance(weight, LowBitWeight):
            return self._kept(weight.quantized(values, name))
        return self._kept([as_stored(values, weight.dtype)])

    def _kept(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return [stored_in(self.room, array) for array in arrays]


def _solved(stored: Weight, a: Array, product: Array, bias: Array) -> tuple[Array, Array]:
    """B and b, given the square matrix A, A · B and A · b, in which A and both products are rounded.

    Tikhonov's regularization keeps the rounding from growing where A is nearly singular.
    """
    size = len(a)
    step = stored.step if isinstance(stored, LowBitWeight) else _ROUNDING[stored.dtype] * float(np.abs(a).mean())
    exact = a.astype(np.float64)
    noise = 4 * size * step**2 / 3  # the square of the norm of a random matrix of such errors
    right = np.column_stack([product, bias]).astype(np.float64)
    found = np.linalg.solve(exact.T @ exact + noise * np.eye(size), exact.T @ right).astype(np.float32)
    return found[:, :-1], found[:, -1]
