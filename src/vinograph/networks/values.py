"""Tensors of a graph as Python values, with operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as opset


class Value:
    """A tensor in a graph, with operators. A plain number becomes a constant in f32."""

    def __init__(self, output: ov.Output | ov.Node) -> None:
        self.output: ov.Output = output.output(0) if isinstance(output, ov.Node) else output

    @property
    def node(self) -> ov.Node:
        """The node that computes it."""
        return self.output.get_node()

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.output.get_partial_shape())

    def size(self, axis: int) -> int:
        """The size of a dimension that is fixed."""
        return int(self.output.get_partial_shape()[axis].get_length())

    def named(self, name: str) -> Value:
        """The same value, with ``name`` given to its node."""
        self.node.set_friendly_name(name)
        return self

    def __add__(self, other: Value | float) -> Value:
        return Value(opset.add(self.output, _output(other)))

    def __sub__(self, other: Value | float) -> Value:
        return Value(opset.subtract(self.output, _output(other)))

    def __mul__(self, other: Value | float) -> Value:
        return Value(opset.multiply(self.output, _output(other)))

    def __truediv__(self, other: Value | float) -> Value:
        return Value(opset.divide(self.output, _output(other)))

    def __radd__(self, other: float) -> Value:
        return Value(opset.add(_output(other), self.output))

    def __rsub__(self, other: float) -> Value:
        return Value(opset.subtract(_output(other), self.output))

    def __rmul__(self, other: float) -> Value:
        return Value(opset.multiply(_output(other), self.output))


def constant(values: Any, dtype: type[np.generic] = np.float32) -> Value:
    """A small constant."""
    return Value(opset.constant(np.asarray(values, dtype)))


def _output(value: Value | float) -> ov.Output:
    return (value if isinstance(value, Value) else constant(value)).output
