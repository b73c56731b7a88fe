"""A graph in segments, each small enough to be calibrated alone, and the whole again.

Ranges of activations are local: what a layer is given depends on the layers before it, but not on how those after it
are stored. So a graph of gigabytes is cut where few bytes pass. The values that pass lie on the disk meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import openvino as ov

from vinograph.runtime import sections
from vinograph.runtime.devices import core
from vinograph.runtime.sections import OrderedGraph, Section, ValueKey, value_key

# Bytes of weights, as they are stored, that a segment holds at least, where it isn't the last.
SEGMENT = 300_000_000

Segment = Section


def read(xml: Path) -> ov.Model:
    """The graph; its weights are mapped, not loaded."""
    return core().read_model(xml)


def input_keys(xml: Path) -> dict[str, ValueKey]:
    """The key of each of the graph's inputs, by the input's name."""
    return {port.get_any_name(): value_key(port) for port in read(xml).inputs}


def node_shapes(xml: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The shapes of all nodes' first outputs, by the nodes' names, for inputs of the given ``shapes``."""
    model = read(xml)
    model.reshape({name: list(shape) for name, shape in shapes.items()})
    return {
        node.get_friendly_name(): tuple(node.get_output_shape(0))
        for node in model.get_ops()
        if node.get_output_size() and node.get_output_partial_shape(0).is_static
    }


def segments(xml: Path, sizes: Mapping[str, tuple[int, ...]]) -> list[Segment]:
    """The segments of a graph, one if it is small; ``sizes`` are the shapes of its nodes, where they are known."""
    ordered = OrderedGraph(read(xml))
    return ordered.sections(sections.residual_cuts(ordered, SEGMENT, sizes))


def cut_out(xml: Path, segment: Segment) -> ov.Model:
    """A segment as a graph of its own, whose inputs and outputs are named by their keys."""
    model = sections.cut_out(read(xml), segment)
    for port, key in zip(model.inputs, segment.inputs, strict=True):
        port.get_tensor().set_names({key})
    return model


def join(xml: Path, parts: Sequence[tuple[Segment, Path]]) -> ov.Model:
    """The whole graph of its segments' files, with the inputs and outputs of the graph in ``xml``."""
    return sections.join(read(xml), [(segment, read(file)) for segment, file in parts])


def passing_bytes(found: Sequence[Segment], sizes: Mapping[str, tuple[int, ...]]) -> int:
    """The most bytes of values, of one sample, that are to be kept at once, by the shapes of the nodes."""
    most, there = 0, set(found[0].inputs)
    for index, segment in enumerate(found):
        there |= {*segment.inputs, *segment.outputs}
        most = max(most, sum(4 * math.prod(sizes.get(key.rpartition(".")[0], ())) for key in there))
        there &= {key for later in found[index + 1 :] for key in later.inputs}
    return most
