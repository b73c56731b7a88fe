"""Cutting a graph into sections, each a graph of its own, and joining them again.

A large graph is compiled in sections, because not every system can release the file's pages while
weights are copied. It is quantized in sections, because the ranges of activations are local. Values
between sections are named by a :data:`ValueKey`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import openvino as ov
from openvino import opset13 as opset

ValueKey = str
"""The name of a value: its node's name, a dot, and its index among that node's outputs."""

# The best place to cut is looked for until a section has so many times its least size.
_WINDOW = 1.3


@dataclass(frozen=True)
class Section:
    """Consecutive nodes of a graph, by name, and the values that pass into and out of them.

    The last section has no ``outputs``: it ends in the graph's own results.
    """

    nodes: frozenset[str]
    inputs: tuple[ValueKey, ...]
    outputs: tuple[ValueKey, ...]


def value_key(value: ov.Output) -> ValueKey:
    """The key of a value."""
    return f"{value.get_node().get_friendly_name()}.{value.get_index()}"


class OrderedGraph:
    """A graph's nodes in topological order, its results last, and where each value is used."""

    def __init__(self, model: ov.Model) -> None:
        ordered = model.get_ordered_ops()
        results = [node for node in ordered if node.get_type_name() == "Result"]
        self.nodes = [*(node for node in ordered if node.get_type_name() != "Result"), *results]
        self.names = [node.get_friendly_name() for node in self.nodes]

    @cached_property
    def constant(self) -> set[str]:
        """The names of the nodes whose values are the same for all inputs."""
        found: set[str] = set()
        for node, name in zip(self.nodes, self.names, strict=True):
            sources = [value.get_node().get_friendly_name() for value in node.input_values()]
            if node.get_type_name() != "Parameter" and all(source in found for source in sources):
                found.add(name)
        return found

    @cached_property
    def last_use(self) -> dict[ValueKey, int]:
        """The position of each value's last user. The graph's results are used after all nodes."""
        uses: dict[ValueKey, int] = {}
        for index, node in enumerate(self.nodes):
            last = len(self.nodes) if node.get_type_name() == "Result" else index
            for value in node.input_values():
                if value.get_node().get_friendly_name() not in self.constant:
                    uses[value_key(value)] = max(last, uses.get(value_key(value), 0))
        return uses

    def weight(self, index: int) -> int:
        """Bytes of the node at ``index`` if it is a constant, else 0."""
        node = self.nodes[index]
        return int(node.get_byte_size()) if node.get_type_name() == "Constant" else 0

    def sections(self, cuts: Sequence[int]) -> list[Section]:
        """The sections between ``cuts``, positions in the order; the whole graph without any."""
        return [self._section(begin, end) for begin, end in pairwise([0, *cuts, len(self.nodes)])]

    def _section(self, begin: int, end: int) -> Section:
        nodes = self.nodes[begin:end]
        inside = {node.get_friendly_name() for node in nodes if node.get_type_name() != "Parameter"}
        inputs: dict[ValueKey, None] = {}  # a dict keeps the order
        outputs: dict[ValueKey, None] = {}
        for node in nodes:
            for value in node.input_values():
                source = value.get_node().get_friendly_name()
                if source not in inside and source not in self.constant:
                    inputs[value_key(value)] = None
            if node.get_friendly_name() in inside - self.constant and end < len(self.nodes):
                keys = (value_key(value) for value in node.outputs())
                outputs |= dict.fromkeys(key for key in keys if self.last_use.get(key, 0) >= end)
        return Section(frozenset(inside), tuple(inputs), tuple(outputs))


def chain_cuts(ordered: OrderedGraph, section_size: int, most_passing: int) -> list[int]:
    """Positions at which a chain of layers is cut into sections.

    A section holds about ``section_size`` bytes of weights. At most ``most_passing`` values pass a
    cut. A cut that leaves less than half a section after it would cost more than it spares.
    """
    ending = Counter(ordered.last_use.values())
    beginning = Counter(
        index
        for index, node in enumerate(ordered.nodes)
        for value in node.outputs()
        if value_key(value) in ordered.last_use
    )
    remaining = sum(map(ordered.weight, range(len(ordered.nodes))))
    cuts, passing, size = [], 0, 0
    for index in range(len(ordered.nodes)):
        passing += beginning[index] - ending[index]
        weight = ordered.weight(index)
        size, remaining = size + weight, remaining - weight
        enough = size >= section_size and remaining >= section_size // 2
        if weight == 0 and enough and 0 < passing <= most_passing:
            cuts.append(index + 1)
            size = 0
    return cuts


def residual_cuts(ordered: OrderedGraph, section_size: int, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Positions at which a residual network is cut: after the end of a block, where few bytes pass.

    Each section but the last holds at least ``section_size`` bytes of weights. ``shapes`` are those
    of the nodes' values, by the nodes' names, where they are known.
    """
    cuts: list[int] = []
    best: tuple[int, int] | None = None
    passing: dict[int, int] = {}
    size = 0
    for index, node in enumerate(ordered.nodes):
        for value in node.outputs():
            until = ordered.last_use.get(value_key(value), index)
            if until > index:
                passing[until] = passing.get(until, 0) + _value_size(node, value, shapes)
        passing.pop(index, None)
        size += ordered.weight(index)
        if size < section_size:
            continue
        if _is_sum(node, ordered.constant) and (best is None or sum(passing.values()) < best[0]):
            best = (sum(passing.values()), index + 1)
        if size >= section_size * _WINDOW and best is not None:
            cuts.append(best[1])
            size = sum(map(ordered.weight, range(best[1], index + 1)))
            best = None
    return cuts


def _value_size(node: ov.Node, value: ov.Output, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of a value; those of one number where its shape isn't known."""
    return math.prod(shapes.get(node.get_friendly_name(), ())) * int(value.get_element_type().size)


def _is_sum(node: ov.Node, constant: set[str]) -> bool:
    """Whether a node adds two values that depend on the inputs, as a residual block ends."""
    if node.get_type_name() != "Add":
        return False
    return not any(value.get_node().get_friendly_name() in constant for value in node.input_values())


def cut_out(model: ov.Model, section: Section) -> ov.Model:
    """A section as a graph of its own, with its inputs in order; ``model`` is used up."""
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}

    def value(key: ValueKey) -> ov.Output:
        name, _, index = key.rpartition(".")
        return nodes[name].output(int(index))

    results = [opset.result(value(key)) for key in section.outputs] or model.get_results()
    for key, result in zip(section.outputs, results, strict=False):
        result.set_friendly_name(f"to {key}")
    parameters = []
    for key in section.inputs:
        source = value(key)
        parameter = opset.parameter(source.get_partial_shape(), source.get_element_type(), name=f"from {key}")
        for user in source.get_target_inputs():
            user.replace_source_output(parameter.output(0))
        parameter.output(0).get_tensor().set_names(source.get_names())
        parameters.append(parameter)
    return ov.Model(results, parameters, model.get_friendly_name())


def join(whole: ov.Model, parts: Sequence[tuple[Section, ov.Model]]) -> ov.Model:
    """The whole graph, made of its changed sections, with the inputs and outputs of ``whole``.

    ``whole`` is used up.
    """
    known = {node.get_friendly_name() for node in whole.get_ops()}
    values = {value_key(port): port for port in whole.inputs}
    results: list[ov.Node] = []
    for section, part in parts:
        for parameter in part.get_parameters():
            key = parameter.get_friendly_name().removeprefix("from ")
            for user in parameter.output(0).get_target_inputs():
                user.replace_source_output(values[key])
        found = part.get_results()
        values |= {node.get_friendly_name().removeprefix("to "): node.input_value(0) for node in found}
        results = [] if section.outputs else found
    inputs, outputs = whole.inputs, whole.outputs
    joined = ov.Model(results, whole.get_parameters(), whole.get_friendly_name())
    for old, new in zip([*inputs, *outputs], [*joined.inputs, *joined.outputs], strict=True):
        new.get_tensor().set_names(old.get_names())
    # OpenVINO's own names count all nodes of the process.
    for index, node in enumerate(joined.get_ordered_ops()):
        if node.get_friendly_name() not in known:
            node.set_friendly_name(f"{node.get_type_name()}_q{index}")
    return joined
