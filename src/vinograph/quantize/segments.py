"""Cutting a graph into segments that can be calibrated alone, and joining them again.

Ranges of activations are local: a layer's inputs depend on the layers before it, but not on how
those after it are stored. So a graph of gigabytes is cut where few bytes pass. The values that pass
are stored on the disk meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import openvino as ov

from vinograph.runtime import sections
from vinograph.runtime.devices import core
from vinograph.runtime.sections import OrderedGraph, Section, ValueKey, value_key

# The least bytes of stored weights in a segment, except the last.
SEGMENT = 300_000_000

Segment = Section


def read_graph(xml: Path) -> ov.Model:
    """The graph, with its weights mapped, not loaded."""
    return core().read_model(xml)


def input_value_keys(xml: Path) -> dict[str, ValueKey]:
    """The key of each of the graph's inputs, by the input's name."""
    return {port.get_any_name(): value_key(port) for port in read_graph(xml).inputs}


def node_shapes(xml: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The shapes of nodes' first outputs by the nodes' names, for inputs of these ``shapes``."""
    model = read_graph(xml)
    model.reshape({name: list(shape) for name, shape in shapes.items()})
    return {
        node.get_friendly_name(): tuple(node.get_output_shape(0))
        for node in model.get_ops()
        if node.get_output_size() and node.get_output_partial_shape(0).is_static
    }


def find_segments(xml: Path, shapes: Mapping[str, tuple[int, ...]]) -> list[Segment]:
    """The segments of a graph; a small one is a single segment.

    ``shapes`` are those of its nodes, by name, where they are known.
    """
    ordered = OrderedGraph(read_graph(xml))
    return ordered.sections(sections.residual_cuts(ordered, SEGMENT, shapes))


def cut_out(xml: Path, segment: Segment) -> ov.Model:
    """A segment as a graph of its own, with inputs named by their keys."""
    model = sections.cut_out(read_graph(xml), segment)
    for port, key in zip(model.inputs, segment.inputs, strict=True):
        port.get_tensor().set_names({key})
    return model


def join(xml: Path, parts: Sequence[tuple[Segment, Path]]) -> ov.Model:
    """The whole graph, joined from its segments' files, with the inputs and outputs of ``xml``."""
    return sections.join(read_graph(xml), [(segment, read_graph(file)) for segment, file in parts])


def peak_boundary_bytes(segments: Sequence[Segment], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The most bytes that the passing values of one sample take at once, in f32."""
    most, live = 0, set(segments[0].inputs)
    for index, segment in enumerate(segments):
        live |= {*segment.inputs, *segment.outputs}
        most = max(most, sum(4 * math.prod(shapes.get(key.rpartition(".")[0], ())) for key in live))
        live &= {key for later in segments[index + 1 :] for key in later.inputs}
    return most
