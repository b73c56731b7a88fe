"""Sines and cosines of what a graph is told (times, sizes), in f32 even where all else is computed in bf16 or f16.

A time of 999 is 1000 in bf16, and its products with frequencies are off by radians. OpenVINO computes a node in f32
that has the attribute "precise" among its runtime information. It loses the attribute of nodes that it replaces by
others, Unsqueeze among them, and what goes through those is rounded.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree

import openvino as ov
from openvino import opset13 as opset

_WAVES = ("Sin", "Cos")
_SHAPES = ("Reshape", "Unsqueeze", "Squeeze")
_COPIES = (*_SHAPES, "Broadcast", "Tile", "Transpose")
_MARKS = ("precise", "DisablePrecisionConversion")  # how it is written, and how OpenVINO writes what it has read
_COMPUTED = (*_WAVES, *_COPIES, "Add", "Subtract", "Multiply", "Divide", "Power", "Exp", "Convert")


def angle_nodes(model: ov.Model) -> list[ov.Node]:
    """What sines and cosines are computed by, back to the model's inputs, the waves themselves among it.

    Each row of nodes that only change the shape becomes one Reshape, which keeps its attribute.
    """
    found: dict[str, ov.Node] = {}
    waiting = [node for node in model.get_ops() if node.get_type_name() in _WAVES]
    while waiting:
        node = waiting.pop()
        if node.get_type_name() in _SHAPES:
            node = _as_reshape(node)
        if node.get_name() in found or node.get_output_element_type(0) != ov.Type.f32:
            continue
        found[node.get_name()] = node
        sources = node.input_values()[: 1 if node.get_type_name() in _COPIES else None]
        waiting += [source.get_node() for source in sources if source.get_node().get_type_name() in _COMPUTED]
    return list(found.values())


def _as_reshape(node: ov.Node) -> ov.Node:
    """One Reshape in the place of ``node`` and of those before it that only change the shape, where it is known."""
    source = node.input_value(0)
    while source.get_node().get_type_name() in _SHAPES:
        source = source.get_node().input_value(0)
    sizes = [-1 if size.is_dynamic else size.get_length() for size in node.get_output_partial_shape(0)]
    alone = node.get_type_name() == "Reshape" and source == node.input_value(0)
    if alone or sizes.count(-1) > 1:
        return node
    reshape = opset.reshape(source, opset.constant(sizes, ov.Type.i64), special_zero=False)
    for user in node.output(0).get_target_inputs():
        user.replace_source_output(reshape.output(0))
    return reshape


def mark_precise(file: Path, names: Collection[str]) -> None:
    """Give the nodes of those names in an IR's ``file`` (.xml) the attribute. OpenVINO's Python interface sets none."""
    tree = ElementTree.parse(file)
    for layer in tree.iterfind("layers/layer"):
        if layer.get("name") in names:
            told = layer.find("rt_info")
            if told is None:
                told = ElementTree.Element("rt_info")
                layer.insert(0 if layer.find("data") is None else 1, told)
            if not any(attribute.get("name") in _MARKS for attribute in told):
                ElementTree.SubElement(told, "attribute", name=_MARKS[0], version="0")
    tree.write(file, encoding="utf-8", xml_declaration=True)
