"""A PyTorch graph to an OpenVINO IR on disk: dynamic where its declaration says so, the same bytes every time."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import openvino as ov
import torch
from openvino import opset13 as opset
from openvino._offline_transformations import apply_moc_transformations, compress_model_transformation
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import nn

from vinograph import ir
from vinograph.convert.angles import angle_nodes, mark_precise
from vinograph.convert.compression import COMPRESSED, compress
from vinograph.convert.scratch import Scratch
from vinograph.convert.weights import is_vector
from vinograph.manifest import Component, Tensor

_MODEL_NAME = "vinograph"
_STORAGE = {"f16": "f16", "bf16": "f16", "u8": "int8", "i8": "int8", "u4": "int4", "i4": "int4", "nf4": "int4"}
_TORCH_TYPES = {"f32": torch.float32, "i64": torch.int64}


@dataclass(frozen=True)
class Graph:
    """A component before it is exported.

    The module's arguments and results are ``inputs`` and ``outputs`` in order. ``sizes`` says what each named
    dimension is while tracing; any value does, since nothing of it may stay in the graph. A graph whose matrices can
    be compressed has a ``scratch``, where they lie until they are written.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    f16_safe: bool = True
    scratch: Scratch | None = None


@dataclass(frozen=True)
class ExportedGraph:
    """A component that was OpenVINO IR already; ``model``'s ports are ``inputs`` and ``outputs`` in order."""

    model: ov.Model
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    f16_safe: bool = True


def export(graph: Graph | ExportedGraph, file: Path, weights: str) -> Component:
    """Write ``graph`` as OpenVINO IR: ``file`` (.xml) and its .bin, with weights stored as ``weights``.

    That is "f32" or "f16"; with "int8" and "int4", graphs that aren't to be compressed are stored in f16. The weights
    of the graph's module are shared with the exported model, not copied. Those of a graph that is IR already stay as
    they are stored.

    Raises:
        RuntimeError: the exported model's inputs or outputs are not what the graph declares, a defect of ours.
    """
    if isinstance(graph, ExportedGraph):
        model, weights = graph.model, _storage(graph.model)
        _name_ports(model, graph)
    else:
        model = _to_openvino(graph)
        _name_ports(model, graph)
        if weights in COMPRESSED and graph.scratch is None:
            weights = "f16"
        if weights != "f32":
            _halve(model)
        if weights in COMPRESSED and graph.scratch is not None:
            compress(model, weights, graph.scratch.keep)
    angles = angle_nodes(model)
    _name_nodes(model)
    ir.save(model, file)
    mark_precise(file, {node.get_friendly_name() for node in angles})
    return Component(file.name, graph.inputs, graph.outputs, weights, graph.f16_safe)


def _to_openvino(graph: Graph) -> ov.Model:
    """What ``ov.convert_model`` does, but for its reports to OpenVINO's makers: a process and a request for each."""
    examples = tuple(_example(tensor, graph.sizes) for tensor in graph.inputs.values())
    with torch.no_grad(), warnings.catch_warnings():
        # OpenVINO's own way in still goes through torch.jit, which PyTorch calls deprecated.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        # Tracing once is enough: nothing here is random, and tests compare the result at other sizes.
        traced = TorchScriptPythonDecoder(
            graph.module.eval(), example_input=examples, trace_kwargs={"check_trace": False}
        )
        frontend = FrontEndManager().load_by_framework("pytorch")
        source = frontend.load(traced)
        for index, tensor in enumerate(graph.inputs.values()):
            source.set_partial_shape(source.get_place_by_input_index(index), _partial_shape(tensor))
        model: ov.Model = frontend.convert(source)
    apply_moc_transformations(model, cf=False, smart_reshape=True)
    return model


def _example(tensor: Tensor, sizes: Mapping[str, int]) -> torch.Tensor:
    shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
    return torch.ones(shape, dtype=_TORCH_TYPES[tensor.dtype])


def _partial_shape(tensor: Tensor) -> ov.PartialShape:
    return ov.PartialShape([-1 if isinstance(size, str) else size for size in tensor.shape])


def _name_ports(model: ov.Model, graph: Graph | ExportedGraph) -> None:
    """Give inputs and outputs the declared names, and check that they have the declared shapes and types."""
    inputs, outputs = model.inputs, model.outputs
    for ports, declared in ((inputs, graph.inputs), (outputs, graph.outputs)):
        if len(ports) != len(declared):
            raise RuntimeError(f"the exported graph has {len(ports)} ports where {list(declared)} are declared")
        for port, (name, tensor) in zip(ports, declared.items(), strict=True):
            if not is_as_declared(port, tensor, exactly=ports is inputs):
                raise RuntimeError(f"{name} came out as {port}, declared as {tensor}")
            port.get_tensor().set_names({name})


def is_as_declared(port: ov.Output, tensor: Tensor, exactly: bool) -> bool:
    """Whether a port has the declared type, rank and fixed dimensions; an output's may be less known."""
    shape = port.get_partial_shape()
    if port.get_element_type().get_type_name() != tensor.dtype or len(shape) != len(tensor.shape):
        return False
    pairs = zip(shape, tensor.shape, strict=True)
    return all((dim.is_dynamic and (isinstance(size, str) or not exactly)) or dim == size for dim, size in pairs)


def _halve(model: ov.Model) -> None:
    """Store matrices in f16. Vectors stay in f32: they weigh nothing, and some would be ruined.

    The time's embedding multiplies times of up to 10000 by a table of frequencies, whose rounding to f16 would turn the
    angles by several radians.
    """
    vectors = {
        node.get_friendly_name(): node.data.copy()
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
        and node.get_output_element_type(0) == ov.Type.f32
        and is_vector(node.shape)
    }
    compress_model_transformation(model)
    for node in model.get_ops():
        name = node.get_friendly_name()
        if node.get_type_name() == "Convert" and name in vectors:
            for user in node.output(0).get_target_inputs():
                user.replace_source_output(opset.constant(vectors[name]).output(0))


def _storage(model: ov.Model) -> str:
    """How most of a graph's weights are stored."""
    sizes: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_output_element_type(0)
            sizes[_STORAGE.get(kind.get_type_name(), "f32")] += math.prod(node.shape) * kind.bitwidth
    return max(sizes, key=lambda name: sizes[name], default="f32")


def _name_nodes(model: ov.Model) -> None:
    """Number the nodes: OpenVINO's own names count all nodes that the process ever made. Inner tensors go nameless."""
    model.set_friendly_name(_MODEL_NAME)
    for index, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        node.set_friendly_name(f"{kind}_{index}")
        for output in node.outputs():
            users = [user.get_node().get_type_name() for user in output.get_target_inputs()]
            if kind not in ("Parameter", "Result") and "Result" not in users:
                output.get_tensor().set_names(set())
