"""A PyTorch graph to an OpenVINO IR on disk: dynamic where its declaration says so, the same bytes every time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import openvino as ov
import torch
from torch import nn

from vinograph.bundle import Component, Tensor

_TORCH_TYPES = {"f32": torch.float32, "i64": torch.int64}


@dataclass(frozen=True)
class Graph:
    """A component before it is exported.

    The module's arguments and results are ``inputs`` and ``outputs`` in order. ``sizes`` says what each named
    dimension is while tracing; any value does, since nothing of it may stay in the graph.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    f16_safe: bool = True


def export(graph: Graph, file: Path, weights: str) -> Component:
    """Write ``graph`` as OpenVINO IR: ``file`` (.xml) and its .bin, with weights stored as ``weights`` ("f32", "f16").

    The weights of the graph's module are shared with the exported model, not copied.

    Raises:
        RuntimeError: the exported model's inputs or outputs are not what the graph declares, a defect of ours.
    """
    examples = tuple(_example(tensor, graph.sizes) for tensor in graph.inputs.values())
    shapes = [_partial_shape(tensor) for tensor in graph.inputs.values()]
    with torch.inference_mode(False), torch.no_grad():
        model = ov.convert_model(graph.module.eval(), example_input=examples, input=shapes)
    _name_ports(model, graph)
    _name_nodes(model)
    ov.save_model(model, file, compress_to_fp16=weights == "f16")
    return Component(file.name, graph.inputs, graph.outputs, weights, graph.f16_safe)


def _example(tensor: Tensor, sizes: Mapping[str, int]) -> torch.Tensor:
    shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
    return torch.ones(shape, dtype=_TORCH_TYPES[tensor.dtype])


def _partial_shape(tensor: Tensor) -> ov.PartialShape:
    return ov.PartialShape([-1 if isinstance(size, str) else size for size in tensor.shape])


def _name_ports(model: ov.Model, graph: Graph) -> None:
    """Give inputs and outputs the declared names, and check that they have the declared shapes and types."""
    for ports, declared in ((model.inputs, graph.inputs), (model.outputs, graph.outputs)):
        if len(ports) != len(declared):
            raise RuntimeError(f"the exported graph has {len(ports)} ports where {list(declared)} are declared")
        for port, (name, tensor) in zip(ports, declared.items(), strict=True):
            shape, expected = port.get_partial_shape(), _partial_shape(tensor)
            if not shape.compatible(expected) or port.get_element_type().get_type_name() != tensor.dtype:
                raise RuntimeError(f"{name} came out as {port}, declared as {tensor}")
            if port in model.inputs and shape != expected:
                raise RuntimeError(f"{name} came out as {port}, declared as {tensor}")


def _name_nodes(model: ov.Model) -> None:
    """Number the nodes: OpenVINO's own names count all nodes that the process ever made."""
    for index, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{index}")
