"""Weights under the checkpoint's names, and the graph that a network computes with them."""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.errors import DamagedModelError
from vinograph.networks.stored import StoredTensor, array_of, copy_into, fits_f16, in_f32, rows_in_f32
from vinograph.networks.values import Value
from vinograph.runtime.precise import mark_decompression

_F8 = ("F8_E4M3", "F8_E5M2")
_FLOATS = ("F64", "F32", "F16", "BF16", *_F8)
_HALVES = ("F16", *_F8)  # types whose values f16 holds exactly
_TYPES: Mapping[str, ov.Type] = MappingProxyType({"F32": ov.Type.f32, "F16": ov.Type.f16, "BF16": ov.Type.bf16})
_PORT_TYPES: Mapping[str, ov.Type] = MappingProxyType({"f32": ov.Type.f32, "i64": ov.Type.i64})
_MODEL_NAME = "vinograph"
_STORAGE = {"f16": "f16", "bf16": "bf16", "u8": "int8", "i8": "int8", "u4": "int4", "i4": "int4", "nf4": "int4"}

Array = NDArray[Any]
Allocate = Callable[[tuple[int, ...], "np.dtype[Any]"], Array]


@dataclass(frozen=True)
class Port:
    """One input or output of a network.

    A dimension that depends on the request has a name in ``shape``, and a fixed one its size.
    """

    shape: tuple[int | str, ...]
    dtype: str = "f32"


@dataclass(frozen=True)
class Ports:
    """A network's inputs and outputs, in order."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]


@dataclass(frozen=True)
class Network:
    """A graph with its ports.

    Attributes:
        f16_safe: False where half-precision arithmetic overflows.
        buffers: arrays that the graph refers to without owning them. Who keeps a compiled form of
            the graph has to keep the network, too.
    """

    model: ov.Model
    ports: Ports
    f16_safe: bool
    buffers: Sequence[Array] = ()

    @property
    def inputs(self) -> Mapping[str, Port]:
        """The ports of its inputs."""
        return self.ports.inputs

    @property
    def outputs(self) -> Mapping[str, Port]:
        """The ports of its outputs."""
        return self.ports.outputs


def _unchanged(_name: str, tensor: StoredTensor) -> StoredTensor:
    """The tensor as the checkpoint has it."""
    return tensor


@dataclass(frozen=True)
class Storage:
    """How a graph holds its matrices.

    Attributes:
        halve: hold matrices in f32 and bf16 as f16, unless their values exceed f16's range.
            Otherwise they are held as the checkpoint stores them.
        allocate: makes the arrays for what is computed or converted. A conversion to disk puts
            these into a file.
        adapt: given a tensor's name and the tensor, returns the tensor to use in its place, of the
            same shape and type.
        constant: the array of a tensor that the graph holds as it is stored. It may be filled while
            the graph is built.
        check_only: read and compute no value. The graph has inputs in place of its weights, and
            building it shows whether every tensor is there and has the right shape.
    """

    halve: bool = False
    allocate: Allocate = np.empty
    adapt: Callable[[str, StoredTensor], StoredTensor] = _unchanged
    constant: Callable[[StoredTensor], Array] = array_of
    check_only: bool = False


@dataclass
class _Shared:
    """The state that all scopes of one component's weights share."""

    tensors: Mapping[str, StoredTensor]
    origin: str
    storage: Storage
    used: set[str] = field(default_factory=set)
    buffers: list[Array] = field(default_factory=list)
    placeholders: list[ov.Node] = field(default_factory=list)


class Weights:
    """A component's tensors under the checkpoint's names; ``weights["a"]["b"]`` are those in "a.b".

    When a tensor is used, its shape is compared with the one that the network needs.
    :meth:`check_all_used` reports tensors that were not used. ``origin`` names the checkpoint in
    errors.
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
        """The same scope, which multiplies its tensors by these factors.

        They hold for :meth:`matrix` and :meth:`vector`. A scaled matrix is held as :meth:`computed`
        holds one. The factors replace those that the scope may have.
        """
        scope = copy.copy(self)
        scope._matrix_factor, scope._vector_factor = np.float32(matrices), np.float32(vectors)
        return scope

    def __contains__(self, name: object) -> bool:
        return self._name(str(name)) in self._shared.tensors

    def _name(self, name: str) -> str:
        return f"{self.scope}.{name}" if self.scope else name

    def values(self, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
        """A tensor's values in f32, for what is computed from them while the graph is built.

        Raises:
            DamagedModelError: it is missing, or has another shape or type.
        """
        return in_f32(self._stored(name, shape))

    def rows(self, name: str, shape: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """A matrix in blocks of rows, in f32, which are in the processor's cache.

        Raises what :meth:`values` does.
        """
        return rows_in_f32(self._stored(name, shape))

    def vector(self, name: str, shape: Sequence[int], view: Sequence[int] | None = None) -> Value:
        """A small tensor in f32, reshaped to ``view``. Raises what :meth:`values` does."""
        self.mark_used(name, shape)
        return self.computed_vector(name, view or shape, lambda: self._times(name, shape, self._vector_factor))

    def matrix(self, name: str, shape: Sequence[int], view: Sequence[int] | None = None) -> Value:
        """A tensor as it is stored, converted to f32 where it is used.

        Raises what :meth:`values` does. A matrix with one row or column is as small as a vector,
        and is held as one. One in 8 bits is held in f16.
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
            return self._matrix(name, in_f32(tensor), view)
        array = self._shared.storage.constant(tensor)
        return _restored(self._constant(array, view, _TYPES[tensor.dtype]), self._name(name))

    def computed(self, name: str, view: Sequence[int], compute: Callable[[], NDArray[np.float32]], like: str) -> Value:
        """A matrix computed from others, under its own ``name``, held as the tensor ``like`` is."""
        if self._shared.storage.check_only:
            return self._placeholder(view)
        return self._matrix(name, compute(), tuple(view), self._shared.tensors[self._name(like)].dtype in _HALVES)

    def computed_vector(self, name: str, view: Sequence[int], compute: Callable[[], NDArray[np.float32]]) -> Value:
        """A vector that is computed from others, under its own ``name``."""
        if self._shared.storage.check_only:
            return self._placeholder(view)
        array = np.ascontiguousarray(compute(), np.float32)
        return Value(self._constant(array, view, ov.Type.f32)).named(self._name(name))

    def mark_used(self, name: str, shape: Sequence[int]) -> None:
        """Mark a tensor as used that no output depends on. Raises what :meth:`values` does."""
        self._stored(name, shape)

    @property
    def used(self) -> frozenset[str]:
        """The names of the tensors that were used so far, in all scopes."""
        return frozenset(self._shared.used)

    def check_all_used(self, ignored: str = "") -> None:
        """Check that every tensor was used, except those whose names match ``ignored``, a pattern.

        Raises:
            DamagedModelError: naming the first tensor that was not used.
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
        return shared.storage.adapt(full, tensor)

    def _times(self, name: str, shape: Sequence[int], factor: np.float32) -> NDArray[np.float32]:
        values = self.values(name, shape)
        return values if factor == 1 else values * factor

    def _placeholder(self, view: Sequence[int]) -> Value:
        node = opset.parameter(list(view), ov.Type.f32)
        self._shared.placeholders.append(node)
        return Value(node)

    def _matrix(self, name: str, values: Array, view: tuple[int, ...], halve: bool | None = None) -> Value:
        storage = self._shared.storage
        halve = (storage.halve if halve is None else halve or storage.halve) and fits_f16(values)
        kind = np.dtype(np.float16 if halve else np.float32)
        array = storage.allocate(values.shape, kind)
        copy_into(values, array)
        stored = self._constant(array, view, ov.Type.f16 if halve else ov.Type.f32)
        return _restored(stored, self._name(name))

    def _constant(self, array: Array, view: Sequence[int], kind: ov.Type) -> ov.Node:
        """A constant that refers to the array without owning it.

        The thread that drops an owning constant last would release the array without Python's lock.
        That can be a thread of OpenVINO's that compiles while Python runs on another.
        """
        self._shared.buffers.append(array)
        return ov.op.Constant(ov.Tensor(array, ov.Shape(tuple(view)), kind), shared_memory=True)


def _place(tensor: StoredTensor, otherwise: str) -> str:
    """The tensor's file, or ``otherwise`` if it is in none."""
    return str(getattr(tensor, "file", otherwise))


def is_vector(shape: Iterable[int]) -> bool:
    """Whether at most one dimension exceeds 1: such a tensor is small and held in f32."""
    return sum(size > 1 for size in shape) < 2


def _restored(stored: ov.Node, name: str) -> Value:
    """The constant under the checkpoint's name, converted to f32."""
    stored.set_friendly_name(name)
    if stored.get_output_element_type(0) == ov.Type.f32:
        return Value(stored)
    converted = opset.convert(stored, "f32")
    mark_decompression(converted)
    return Value(converted)


def build(
    weights: Weights,
    ports: Ports,
    compute: Callable[..., Value | Sequence[Value]],
    *,
    f16_safe: bool = True,
) -> Network:
    """The network that ``compute`` describes, over ``weights``.

    ``compute`` takes the inputs as keyword arguments and returns the outputs in order. Nodes
    without a name of their own are numbered, so that the same network is the same graph in every
    process.
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
    return Network(model, ports, f16_safe, weights._shared.buffers)


def number_nodes(model: ov.Model) -> None:
    """Give numbers to the nodes without a name of their own.

    OpenVINO's default names count all nodes that the process ever made. A node whose name is taken
    is numbered, too, since a layer may have the name of an input. Inputs keep theirs.
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
    """How most of a graph's weights are stored: "f32", "f16", "bf16", "int8" or "int4"."""
    sizes: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_output_element_type(0)
            sizes[_STORAGE.get(kind.get_type_name(), "f32")] += math.prod(node.shape) * kind.bitwidth
    return max(sizes, key=lambda name: sizes[name], default="f32")
