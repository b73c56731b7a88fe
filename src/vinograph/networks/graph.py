"""Weights by the checkpoint's names, values with operators, and the graph that is made of both."""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.errors import DamagedModelError
from vinograph.runtime.precise import mark_decompression

_F8 = ("F8_E4M3", "F8_E5M2")
_FLOATS = ("F64", "F32", "F16", "BF16", *_F8)
_HALVES = ("F16", *_F8)  # what half precision holds in full
_TYPES: Mapping[str, ov.Type] = MappingProxyType({"F32": ov.Type.f32, "F16": ov.Type.f16, "BF16": ov.Type.bf16})
_PORT_TYPES: Mapping[str, ov.Type] = MappingProxyType({"f32": ov.Type.f32, "i64": ov.Type.i64})
_MODEL_NAME = "vinograph"
_STORAGE = {"f16": "f16", "bf16": "bf16", "u8": "int8", "i8": "int8", "u4": "int4", "i4": "int4", "nf4": "int4"}
_LARGEST_F16 = 65504.0
_VALUES_AT_ONCE = 1 << 22  # values that are converted at once

Array = NDArray[Any]
Allocate = Callable[[tuple[int, ...], "np.dtype[Any]"], Array]


class StoredTensor(Protocol):
    """One tensor of a checkpoint: its shape and its type as safetensors names it ("F32", "F16", "BF16", "I64", …)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""

    @property
    def dtype(self) -> str:
        """Its type."""

    def array(self) -> Array:
        """Its values, mapped from the file where they can be.

        Those of BF16 are given as uint16, and those in 8 bits as the floating-point numbers that they stand for.
        """


@dataclass(frozen=True)
class Port:
    """One input or output of a network. A dimension that follows the request has a name, a fixed one is a number."""

    shape: tuple[int | str, ...]
    dtype: str = "f32"


@dataclass(frozen=True)
class Ports:
    """What a network takes and gives, in order."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]


@dataclass(frozen=True)
class Network:
    """A graph with its ports in order. ``f16_safe`` is False where half-precision arithmetic overflows.

    ``held`` are arrays that the graph refers to without owning them: whoever keeps a compiled form of the graph keeps
    the network, too.
    """

    model: ov.Model
    ports: Ports
    f16_safe: bool
    held: Sequence[Array] = ()

    @property
    def inputs(self) -> Mapping[str, Port]:
        """What it takes."""
        return self.ports.inputs

    @property
    def outputs(self) -> Mapping[str, Port]:
        """What it gives."""
        return self.ports.outputs


@dataclass(frozen=True)
class Storage:
    """How a graph holds its matrices.

    As they are stored, or with ``halve`` those in f32 and bf16 as f16, unless they pass f16's range. ``allocate``
    makes room for what is computed or converted; a conversion to disk puts that into a file. With ``check_only`` no
    value is read or computed: the graph that is built has inputs in place of its weights, and only tells whether every
    tensor is there and fits.
    """

    halve: bool = False
    allocate: Allocate = np.empty
    check_only: bool = False


class Value:
    """A tensor in a graph, with operators. Plain numbers next to it are constants in f32."""

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
        """A dimension that doesn't follow the request."""
        return int(self.output.get_partial_shape()[axis].get_length())

    def named(self, name: str) -> Value:
        """The same value, whose node bears ``name``."""
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


@dataclass
class _Shared:
    """What all scopes of one component's weights have in common."""

    tensors: Mapping[str, StoredTensor]
    origin: str
    storage: Storage
    used: set[str] = field(default_factory=set)
    held: list[Array] = field(default_factory=list)
    placeholders: list[ov.Node] = field(default_factory=list)


class Weights:
    """A component's tensors, by the checkpoint's names. ``weights["a"]["b"]`` is the scope of names in "a.b".

    Each tensor is compared with the shape that the network wants when it is used, and :meth:`finish` reports those
    that were not. ``origin`` names the checkpoint in errors.
    """

    def __init__(self, tensors: Mapping[str, StoredTensor], origin: str, storage: Storage | None = None) -> None:
        self._shared = _Shared(tensors, origin, storage or Storage())
        self.scope = ""
        self._matrix_factor = self._vector_factor = np.float32(1)

    def __getitem__(self, name: str | int) -> Weights:
        child = copy.copy(self)
        child.scope = self._name(str(name))
        return child

    def scaled(self, *, matrices: float = 1, vectors: float = 1) -> Weights:
        """The same scope, whose :meth:`matrix` and :meth:`vector` give the stored values times these factors.

        A matrix that is scaled is computed, so it is held as :meth:`computed` holds one. The factors are those of
        the scope alone, not on top of those that it may have.
        """
        scope = copy.copy(self)
        scope._matrix_factor, scope._vector_factor = np.float32(matrices), np.float32(vectors)
        return scope

    def __contains__(self, name: object) -> bool:
        return self._name(str(name)) in self._shared.tensors

    def _name(self, name: str) -> str:
        return f"{self.scope}.{name}" if self.scope else name

    def values(self, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
        """A tensor in f32, for what is computed of it while the graph is built.

        Raises:
            DamagedModelError: it is missing, or has another shape or type.
        """
        return _in_f32(self._stored(name, shape))

    def vector(self, name: str, shape: Sequence[int], view: Sequence[int] | None = None) -> Value:
        """A tensor that weighs little, in f32, with the dimensions ``view``. Raises what :meth:`values` does."""
        self.check(name, shape)
        return self.computed_vector(name, view or shape, lambda: self._times(name, shape, self._vector_factor))

    def matrix(self, name: str, shape: Sequence[int], view: Sequence[int] | None = None) -> Value:
        """A tensor as it is stored, converted to f32 where it is multiplied. Raises what :meth:`values` does.

        A matrix with one row or column weighs as little as a vector, and is held as one. One in 8 bits is held as f16.
        """
        tensor, view, factor = self._stored(name, shape), tuple(view or shape), self._matrix_factor
        if is_vector(tensor.shape):
            return self.computed_vector(name, view, lambda: self._times(name, shape, factor))
        if self._shared.storage.check_only:
            return self._placeholder(view)
        if factor != 1:
            return self._matrix(name, self._times(name, shape, factor), view, tensor.dtype in _HALVES)
        if tensor.dtype in _F8:
            return self._matrix(name, tensor.array(), view, halve=True)
        if tensor.dtype == "F64" or (self._shared.storage.halve and tensor.dtype != "F16"):
            return self._matrix(name, _in_f32(tensor), view)
        return _restored(self._constant(tensor.array(), view, _TYPES[tensor.dtype]), self._name(name))

    def computed(self, name: str, view: Sequence[int], compute: Callable[[], NDArray[np.float32]], like: str) -> Value:
        """A matrix computed of others under its own ``name``, held as the tensor ``like`` of this scope is."""
        if self._shared.storage.check_only:
            return self._placeholder(view)
        return self._matrix(name, compute(), tuple(view), self._shared.tensors[self._name(like)].dtype in _HALVES)

    def computed_vector(self, name: str, view: Sequence[int], compute: Callable[[], NDArray[np.float32]]) -> Value:
        """A vector that was computed of others, under its own ``name``."""
        if self._shared.storage.check_only:
            return self._placeholder(view)
        array = np.ascontiguousarray(compute(), np.float32)
        return Value(self._constant(array, view, ov.Type.f32)).named(self._name(name))

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Count a tensor as used that no output depends on. Raises what :meth:`values` does."""
        self._stored(name, shape)

    @property
    def used(self) -> frozenset[str]:
        """The names of the tensors that were used so far, in any scope."""
        return frozenset(self._shared.used)

    def finish(self, ignored: str = "") -> None:
        """Check that every tensor was used, but for those whose names match the regular expression ``ignored``.

        Raises:
            DamagedModelError: naming the first that the network has no place for.
        """
        shared = self._shared
        unused = shared.tensors.keys() - shared.used
        surplus = sorted(name for name in unused if not re.fullmatch(ignored, name))
        if surplus:
            more = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
            place = _place(shared.tensors[surplus[0]], shared.origin)
            raise DamagedModelError(f"{place} has the tensor {surplus[0]}{more}, which the model has no place for")

    def _stored(self, name: str, shape: Sequence[int]) -> StoredTensor:
        shared, full = self._shared, self._name(name)
        tensor = shared.tensors.get(full)
        if tensor is None:
            raise DamagedModelError(f"{shared.origin} lacks the tensor {full}, of shape {list(shape)}")
        place = _place(tensor, shared.origin)
        if tuple(tensor.shape) != tuple(shape):
            raise DamagedModelError(
                f"{place}: the tensor {full} has the shape {list(tensor.shape)}; "
                f"the configuration asks for {list(shape)}"
            )
        if tensor.dtype not in _FLOATS:
            raise DamagedModelError(f"{place}: the tensor {full} is of the type {tensor.dtype}")
        shared.used.add(full)
        return tensor

    def _times(self, name: str, shape: Sequence[int], factor: np.float32) -> NDArray[np.float32]:
        values = self.values(name, shape)
        return values if factor == 1 else values * factor

    def _placeholder(self, view: Sequence[int]) -> Value:
        node = opset.parameter(list(view), ov.Type.f32)
        self._shared.placeholders.append(node)
        return Value(node)

    def _matrix(self, name: str, values: Array, view: tuple[int, ...], halve: bool | None = None) -> Value:
        storage = self._shared.storage
        halve = (storage.halve if halve is None else halve or storage.halve) and _fits_f16(values)
        kind = np.dtype(np.float16 if halve else np.float32)
        held = storage.allocate(values.shape, kind)
        _copy(values, held)
        stored = self._constant(held, view, ov.Type.f16 if halve else ov.Type.f32)
        return _restored(stored, self._name(name))

    def _constant(self, array: Array, view: Sequence[int], kind: ov.Type) -> ov.Node:
        """A constant that refers to the array.

        It doesn't own it. A constant that did would let go of it on whatever thread drops it last, without Python's
        lock, and such a thread compiles while Python runs on another.
        """
        self._shared.held.append(array)
        return ov.op.Constant(ov.Tensor(array, ov.Shape(tuple(view)), kind), shared_memory=True)


def _place(tensor: StoredTensor, otherwise: str) -> str:
    """The file that a tensor is in, where it is in one."""
    return str(getattr(tensor, "file", otherwise))


def is_vector(shape: Iterable[int]) -> bool:
    """Whether a tensor of that shape weighs nothing, so that it is held in f32 whatever is asked for."""
    return sum(size > 1 for size in shape) < 2


def _restored(stored: ov.Node, name: str) -> Value:
    """The constant under the checkpoint's name, in f32."""
    stored.set_friendly_name(name)
    if stored.get_output_element_type(0) == ov.Type.f32:
        return Value(stored)
    converted = opset.convert(stored, "f32")
    mark_decompression(converted)
    return Value(converted)


def _in_f32(tensor: StoredTensor) -> NDArray[np.float32]:
    """The values of a tensor; those in f32 stay mapped."""
    array = tensor.array()
    if tensor.dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def _parts(array: Array) -> Iterable[Array]:
    """A contiguous array, a stretch of values at a time."""
    flat = array.reshape(-1)
    return (flat[begin : begin + _VALUES_AT_ONCE] for begin in range(0, flat.size, _VALUES_AT_ONCE))


def _fits_f16(values: Array) -> bool:
    return all(bool(np.abs(part).max() <= _LARGEST_F16) for part in _parts(values))


def _copy(values: Array, held: Array) -> None:
    for source, target in zip(_parts(values), _parts(held), strict=True):
        target[...] = source


def build(
    weights: Weights,
    ports: Ports,
    compute: Callable[..., Value | Sequence[Value]],
    *,
    f16_safe: bool = True,
) -> Network:
    """The graph of ``compute``, which gets the inputs by name and gives the outputs in order, over ``weights``.

    Nodes that bear no name of their own are numbered, so that the same network is the same graph in every process.
    """
    parameters = {key: _parameter(key, port) for key, port in ports.inputs.items()}
    count = len(weights._shared.placeholders)
    results = compute(**{key: Value(node) for key, node in parameters.items()})
    values = [results] if isinstance(results, Value) else list(results)
    for value, key in zip(values, ports.outputs, strict=True):
        value.output.get_tensor().set_names({key})
    placeholders = weights._shared.placeholders[count:]
    model = ov.Model([value.output for value in values], [*parameters.values(), *placeholders], _MODEL_NAME)
    number_nodes(model)
    return Network(model, ports, f16_safe, weights._shared.held)


def number_nodes(model: ov.Model) -> None:
    """Number the nodes that bear no name of their own: OpenVINO's names count all nodes that the process ever made.

    Nodes are told apart by their names, so one that bears another's is numbered, too: a layer may be called as an input
    is. Inputs keep theirs.
    """
    nodes = model.get_ordered_ops()
    taken = {node.get_friendly_name() for node in model.get_parameters()}
    for index, node in enumerate(nodes):
        name = node.get_friendly_name()
        if name == node.get_name():
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
        elif node.get_type_name() != "Parameter":
            if name in taken:
                node.set_friendly_name(f"{name}_{index}")
            taken.add(node.get_friendly_name())


def _parameter(name: str, port: Port) -> ov.Node:
    shape = ov.PartialShape([-1 if isinstance(size, str) else size for size in port.shape])
    parameter = opset.parameter(shape, _PORT_TYPES[port.dtype], name=name)
    parameter.output(0).get_tensor().set_names({name})
    return parameter


def storage_of(model: ov.Model) -> str:
    """How most of a graph's weights are stored."""
    sizes: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_output_element_type(0)
            sizes[_STORAGE.get(kind.get_type_name(), "f32")] += math.prod(node.shape) * kind.bitwidth
    return max(sizes, key=lambda name: sizes[name], default="f32")
