"""Sines and cosines of times and sizes in a graph that others traced, marked to be computed in full precision.

OpenVINO loses the mark of nodes that it replaces by others, Unsqueeze among them, and what goes through those is
rounded. So what only changes the shape on the way to a wave becomes a Reshape, which keeps its mark.
"""

from __future__ import annotations

import openvino as ov
from openvino import opset13 as opset

from vinograph.networks.precise import mark_precise

_WAVES = ("Sin", "Cos")
_SHAPES = ("Reshape", "Unsqueeze", "Squeeze")
_COPIES = (*_SHAPES, "Broadcast", "Tile", "Transpose")
_COMPUTED = (*_WAVES, *_COPIES, "Add", "Subtract", "Multiply", "Divide", "Power", "Exp", "Convert")


def mark_angles(model: ov.Model) -> None:
    """Have what sines and cosines are computed by, and themselves, computed in f32 whatever the rest is."""
    for node in angle_nodes(model):
        mark_precise(node)


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
