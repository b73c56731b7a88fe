"""A graph in sections, each a graph of its own, and the whole again.

A large graph is compiled in sections, since its weights are in memory twice meanwhile, and quantized in sections, since
the ranges of activations are local. Values between sections are named by :data:`ValueKey`.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import openvino as ov
from openvino import opset13 as opset

ValueKey = str
"""A value of the graph: the name of the node that computes it, and its place among that node's outputs."""

_WINDOW = 1.3  # times a section's size, within which the best place to cut is looked for
_DONT_NEED = 4  # MADV_DONTNEED


@dataclass(frozen=True)
class Section:
    """Some of a graph's nodes: the values that they need, and those that they give to later sections.

    The last one gives none, and ends in the graph's own results. ``nodes`` are their names.
    """

    nodes: frozenset[str]
    needs: tuple[ValueKey, ...]
    gives: tuple[ValueKey, ...]


def value_key(value: ov.Output) -> ValueKey:
    """The name of a value."""
    return f"{value.get_node().get_friendly_name()}.{value.get_index()}"


class OrderedGraph:
    """A graph's nodes in order, its results last, and where each value is used."""

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
        """The last place at which each value is used. What a graph gives is used at its end."""
        uses: dict[ValueKey, int] = {}
        for index, node in enumerate(self.nodes):
            last = len(self.nodes) if node.get_type_name() == "Result" else index
            for value in node.input_values():
                if value.get_node().get_friendly_name() not in self.constant:
                    uses[value_key(value)] = max(last, uses.get(value_key(value), 0))
        return uses

    def weight(self, index: int) -> int:
        """The bytes of a constant; 0 of what is none."""
        node = self.nodes[index]
        return int(node.get_byte_size()) if node.get_type_name() == "Constant" else 0

    def sections(self, cuts: Sequence[int]) -> list[Section]:
        """What lies between ``cuts``, which are places in the order; all of the graph where there are none."""
        return [self._section(begin, end) for begin, end in pairwise([0, *cuts, len(self.nodes)])]

    def _section(self, begin: int, end: int) -> Section:
        nodes = self.nodes[begin:end]
        inside = {node.get_friendly_name() for node in nodes if node.get_type_name() != "Parameter"}
        needs: dict[ValueKey, None] = {}
        gives: dict[ValueKey, None] = {}
        for node in nodes:
            for value in node.input_values():
                source = value.get_node().get_friendly_name()
                if source not in inside and source not in self.constant:
                    needs[value_key(value)] = None
            if node.get_friendly_name() in inside - self.constant and end < len(self.nodes):
                given = (value_key(value) for value in node.outputs())
                gives |= dict.fromkeys(key for key in given if self.last_use.get(key, 0) >= end)
        return Section(frozenset(inside), tuple(needs), tuple(gives))


def chain_cuts(ordered: OrderedGraph, size_wanted: int, most_passing: int) -> list[int]:
    """Before which places a chain is cut: where weights fill ``size_wanted`` bytes and ``most_passing`` values pass.

    A cut that leaves less than half a section after it would cost more than it spares.
    """
    ending = Counter(ordered.last_use.values())
    beginning = Counter(
        index
        for index, node in enumerate(ordered.nodes)
        for value in node.outputs()
        if value_key(value) in ordered.last_use
    )
    left = sum(map(ordered.weight, range(len(ordered.nodes))))
    cuts, passing, size = [], 0, 0
    for index in range(len(ordered.nodes)):
        passing += beginning[index] - ending[index]
        weight = ordered.weight(index)
        size, left = size + weight, left - weight
        enough = size >= size_wanted and left >= size_wanted // 2
        if weight == 0 and enough and 0 < passing <= most_passing:
            cuts.append(index + 1)
            size = 0
    return cuts


def residual_cuts(ordered: OrderedGraph, size_wanted: int, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Before which places a network is cut: after a sum of two values, where the fewest bytes pass.

    Such a sum is the end of a residual block. A section holds ``size_wanted`` bytes of weights at least, where it isn't
    the last. ``shapes`` are those of the nodes' values, where they are known.
    """
    cuts: list[int] = []
    best: tuple[int, int] | None = None
    passing: dict[int, int] = {}
    size = 0
    for index, node in enumerate(ordered.nodes):
        for value in node.outputs():
            until = ordered.last_use.get(value_key(value), index)
            if until > index:
                passing[until] = passing.get(until, 0) + _bytes(node, value, shapes)
        passing.pop(index, None)
        size += ordered.weight(index)
        if size < size_wanted:
            continue
        if _is_sum(node, ordered.constant) and (best is None or sum(passing.values()) < best[0]):
            best = (sum(passing.values()), index + 1)
        if size >= size_wanted * _WINDOW and best is not None:
            cuts.append(best[1])
            size = sum(map(ordered.weight, range(best[1], index + 1)))
            best = None
    return cuts


def _bytes(node: ov.Node, value: ov.Output, shapes: Mapping[str, tuple[int, ...]]) -> int:
    return math.prod(shapes.get(node.get_friendly_name(), ())) * int(value.get_element_type().size)


def _is_sum(node: ov.Node, constant: set[str]) -> bool:
    if node.get_type_name() != "Add":
        return False
    return not any(value.get_node().get_friendly_name() in constant for value in node.input_values())


def cut_out(model: ov.Model, section: Section) -> ov.Model:
    """A section as a graph of its own, which takes what it needs in order. The ``model`` is spent then."""
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
    """The whole graph of its changed sections, with the inputs and outputs of ``whole``, which is spent then."""
    known = {node.get_friendly_name() for node in whole.get_ops()}
    there = {value_key(port): port for port in whole.inputs}
    results: list[ov.Node] = []
    for section, part in parts:
        for parameter in part.get_parameters():
            key = parameter.get_friendly_name().removeprefix("from ")
            for user in parameter.output(0).get_target_inputs():
                user.replace_source_output(there[key])
        found = part.get_results()
        there |= {node.get_friendly_name().removeprefix("to "): node.input_value(0) for node in found}
        results = [] if section.outputs else found
    inputs, outputs = whole.inputs, whole.outputs
    joined = ov.Model(results, whole.get_parameters(), whole.get_friendly_name())
    for old, new in zip([*inputs, *outputs], [*joined.inputs, *joined.outputs], strict=True):
        new.get_tensor().set_names(old.get_names())
    for index, node in enumerate(joined.get_ordered_ops()):  # OpenVINO's own names count all nodes of the process
        if node.get_friendly_name() not in known:
            node.set_friendly_name(f"{node.get_type_name()}_q{index}")
    return joined


def release_pages(file: Path) -> None:
    """Let the system have the memory of what this process maps from ``file``; what is read again is mapped again.

    What is compiled keeps the mapping of its weights, of which it mostly has copies. Weights of checkpoints are mapped
    copy-on-write, and never written. Only Linux is asked.
    """
    if sys.platform != "linux":
        return
    name, libc = str(file.resolve()), ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        place, access, *rest = line.split(maxsplit=5)
        shared_with_others = "w" in access and "s" in access
        if rest[-1] == name and not shared_with_others:
            begin, end = (int(address, 16) for address in place.split("-"))
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONT_NEED)
