"""A graph in segments, each small enough to be calibrated alone, and the whole again.

Ranges of activations are local: what a layer is given depends on the layers before it, but not on how those after it
are stored. So a graph of gigabytes is cut where few bytes pass. The values that pass lie on the disk meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import openvino as ov
from openvino import opset13 as opset

# Bytes of weights, as they are stored, that a segment holds at least, where it isn't the last.
SEGMENT = 300_000_000
_WINDOW = 1.3  # times that size, within which the best place to cut is looked for

Key = str
"""A value of the graph: the name of the node that computes it, and its place among that node's outputs."""


def read(xml: Path) -> ov.Model:
    """The graph; its weights are mapped, not loaded."""
    return ov.Core().read_model(xml)


@dataclass(frozen=True)
class Segment:
    """Some of a graph's nodes: the values that they need, and those that they give to later segments.

    The last one gives none, and ends in the graph's own results. ``nodes`` are their names.
    """

    nodes: frozenset[str]
    needs: tuple[Key, ...]
    gives: tuple[Key, ...]


def key_of(value: ov.Output) -> Key:
    """The name of a value."""
    return f"{value.get_node().get_friendly_name()}.{value.get_index()}"


def input_keys(xml: Path) -> dict[str, Key]:
    """The key of each of the graph's inputs, by the input's name."""
    return {port.get_any_name(): key_of(port) for port in read(xml).inputs}


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
    model = read(xml)
    ordered = model.get_ordered_ops()
    results = [node for node in ordered if node.get_type_name() == "Result"]
    nodes = [*(node for node in ordered if node.get_type_name() != "Result"), *results]
    constant = _constant(nodes)
    last_use = _last_uses(nodes, constant)
    ends = [*_cuts(nodes, constant, last_use, sizes), len(nodes)]
    return [_described(nodes, constant, last_use, begin, end) for begin, end in pairwise([0, *ends])]


def _constant(nodes: Sequence[ov.Node]) -> set[str]:
    """The names of the nodes whose values are the same for all inputs."""
    found: set[str] = set()
    for node in nodes:
        sources = [value.get_node().get_friendly_name() for value in node.input_values()]
        if node.get_type_name() != "Parameter" and all(source in found for source in sources):
            found.add(node.get_friendly_name())
    return found


def _last_uses(nodes: Sequence[ov.Node], constant: set[str]) -> dict[Key, int]:
    """The last place, in the graph's order, at which each value is used."""
    return {
        key_of(value): index
        for index, node in enumerate(nodes)
        for value in node.input_values()
        if value.get_node().get_friendly_name() not in constant
    }


def _cuts(
    nodes: Sequence[ov.Node], constant: set[str], last_use: Mapping[Key, int], sizes: Mapping[str, tuple[int, ...]]
) -> list[int]:
    """Before which nodes to cut: after a sum of two values, such as a residual block ends with."""
    cuts: list[int] = []
    best: tuple[int, int] | None = None
    passing: dict[int, int] = {}
    size = 0
    for index, node in enumerate(nodes):
        for value in node.outputs():
            until = last_use.get(key_of(value), index)
            if until > index:
                passing[until] = passing.get(until, 0) + _bytes(node, value, sizes)
        passing.pop(index, None)
        if node.get_type_name() == "Constant":
            size += node.get_byte_size()
        if size < SEGMENT:
            continue
        if _is_sum(node, constant) and (best is None or sum(passing.values()) < best[0]):
            best = (sum(passing.values()), index + 1)
        if size >= SEGMENT * _WINDOW and best is not None:
            cuts.append(best[1])
            size = sum(
                each.get_byte_size() for each in nodes[best[1] : index + 1] if each.get_type_name() == "Constant"
            )
            best = None
    return cuts


def _bytes(node: ov.Node, value: ov.Output, sizes: Mapping[str, tuple[int, ...]]) -> int:
    return math.prod(sizes.get(node.get_friendly_name(), ())) * int(value.get_element_type().size)


def _is_sum(node: ov.Node, constant: set[str]) -> bool:
    if node.get_type_name() != "Add":
        return False
    return not any(value.get_node().get_friendly_name() in constant for value in node.input_values())


def _described(
    nodes: Sequence[ov.Node], constant: set[str], last_use: Mapping[Key, int], begin: int, end: int
) -> Segment:
    inside = {node.get_friendly_name() for node in nodes[begin:end] if node.get_type_name() != "Parameter"}
    needs: dict[Key, None] = {}
    gives: dict[Key, None] = {}
    for node in nodes[begin:end]:
        for value in node.input_values():
            source = value.get_node().get_friendly_name()
            if source not in inside and source not in constant:
                needs[key_of(value)] = None
        for value in node.outputs():
            if node.get_friendly_name() in inside - constant and last_use.get(key_of(value), 0) >= end:
                gives[key_of(value)] = None
    return Segment(frozenset(inside), tuple(needs), tuple(gives))


def cut_out(xml: Path, segment: Segment) -> ov.Model:
    """A segment as a graph of its own, whose inputs and outputs are named by their keys."""
    model = read(xml)
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}

    def value(key: Key) -> ov.Output:
        name, _, index = key.rpartition(".")
        return nodes[name].output(int(index))

    results = [opset.result(value(key)) for key in segment.gives] or model.get_results()
    for key, result in zip(segment.gives, results, strict=False):
        result.set_friendly_name(f"to {key}")
    parameters = []
    for key in segment.needs:
        source = value(key)
        parameter = opset.parameter(source.get_partial_shape(), source.get_element_type(), name=f"from {key}")
        for user in source.get_target_inputs():
            user.replace_source_output(parameter.output(0))
        parameter.output(0).get_tensor().set_names({key})
        parameters.append(parameter)
    return ov.Model(results, parameters, model.get_friendly_name())


def join(xml: Path, parts: Sequence[tuple[Segment, Path]]) -> ov.Model:
    """The whole graph of its segments' files, with the inputs and outputs of the graph in ``xml``."""
    whole = read(xml)
    known = {node.get_friendly_name() for node in whole.get_ops()}
    there = {key_of(port): port for port in whole.inputs}
    results: list[ov.Node] = []
    for segment, file in parts:
        part = read(file)
        for parameter in part.get_parameters():
            key = parameter.get_friendly_name().removeprefix("from ")
            for user in parameter.output(0).get_target_inputs():
                user.replace_source_output(there[key])
        found = part.get_results()
        there |= {node.get_friendly_name().removeprefix("to "): node.input_value(0) for node in found}
        results = [] if segment.gives else found
    inputs, outputs = whole.inputs, whole.outputs
    joined = ov.Model(results, whole.get_parameters(), whole.get_friendly_name())
    for old, new in zip([*inputs, *outputs], [*joined.inputs, *joined.outputs], strict=True):
        new.get_tensor().set_names(old.get_names())
    _name_nodes(joined, known)
    return joined


def _name_nodes(model: ov.Model, known: set[str]) -> None:
    """Number what isn't ``known`` by name: OpenVINO's own names count all nodes that the process ever made."""
    for index, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() not in known:
            node.set_friendly_name(f"{node.get_type_name()}_q{index}")


def passing_bytes(found: Sequence[Segment], sizes: Mapping[str, tuple[int, ...]]) -> int:
    """The most bytes of values, of one sample, that are to be kept at once, by the shapes of the nodes."""
    most, there = 0, set(found[0].needs)
    for index, segment in enumerate(found):
        there |= {*segment.needs, *segment.gives}
        most = max(most, sum(4 * math.prod(sizes.get(key.rpartition(".")[0], ())) for key in there))
        there &= {key for later in found[index + 1 :] for key in later.needs}
    return most
