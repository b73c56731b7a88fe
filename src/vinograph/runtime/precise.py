"""Marks of nodes: computed in f32 in every precision, or keeping a stored weight small.

Two attributes of nodes say so. *Precise* nodes are computed in f32 even where the rest runs in bf16
or f16. Sines and cosines of timesteps and sizes need that. A *decompression* is the conversion of a
stored weight to f32. It must survive constant folding, or the weight would be stored in f32.

OpenVINO's Python interface can copy these attributes but not make them. They are copied from a
small graph that has them, which is read once in a process.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from vinograph.runtime.devices import core

# Sin(Convert(Constant)), in which the sine is precise and the conversion is a decompression.
_EXAMPLE = """<?xml version="1.0"?>
<net name="example" version="11">
 <layers>
  <layer id="0" name="c" type="Const" version="opset1">
   <data element_type="f16" shape="1" offset="0" size="2"/>
   <output><port id="0" precision="FP16"><dim>1</dim></port></output>
  </layer>
  <layer id="1" name="decompression" type="Convert" version="opset1">
   <data destination_type="f32"/>
   <rt_info><attribute name="decompression" version="0"/></rt_info>
   <input><port id="0" precision="FP16"><dim>1</dim></port></input>
   <output><port id="1" precision="FP32"><dim>1</dim></port></output>
  </layer>
  <layer id="2" name="precise" type="Sin" version="opset1">
   <rt_info><attribute name="precise" version="0"/></rt_info>
   <input><port id="0" precision="FP32"><dim>1</dim></port></input>
   <output><port id="1" precision="FP32"><dim>1</dim></port></output>
  </layer>
  <layer id="3" name="result" type="Result" version="opset1">
   <input><port id="0" precision="FP32"><dim>1</dim></port></input>
  </layer>
 </layers>
 <edges>
  <edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
  <edge from-layer="1" from-port="1" to-layer="2" to-port="0"/>
  <edge from-layer="2" from-port="1" to-layer="3" to-port="0"/>
 </edges>
</net>
"""


def mark_precise(node: ov.Node) -> None:
    """Make OpenVINO compute ``node`` in f32 in every precision."""
    _copy_attributes("precise", node)


def mark_decompression(node: ov.Node) -> None:
    """Keep ``node``, which converts a stored weight, from being folded into a constant."""
    _copy_attributes("decompression", node)


def _copy_attributes(kind: str, node: ov.Node) -> None:
    for key, value in _attributes()[kind].items():
        node.set_rt_info(value, key)


@cache
def _attributes() -> dict[str, dict[str, Any]]:
    """The attributes of the example graph's nodes, by the nodes' names."""
    weights = ov.Tensor(np.zeros(2, np.uint8))
    model = core().read_model(_EXAMPLE.encode(), weights)
    found = {node.get_friendly_name(): dict(node.get_rt_info().items()) for node in model.get_ops()}
    for kind in ("precise", "decompression"):
        if not found.get(kind):
            raise RuntimeError(f"OpenVINO {ov.get_version()} has no attribute for nodes that are {kind}")
    return found


_WAVES = ("Sin", "Cos")
_SHAPES = ("Reshape", "Unsqueeze", "Squeeze")
_COPIES = (*_SHAPES, "Broadcast", "Tile", "Transpose")
_COMPUTED = (*_WAVES, *_COPIES, "Add", "Subtract", "Multiply", "Divide", "Power", "Exp", "Convert")


def mark_angles(model: ov.Model) -> None:
    """Mark the sines and cosines of a traced graph as precise, and so what computes their angles.

    OpenVINO loses the mark of nodes that it replaces by others, such as Unsqueeze, and then rounds
    what passes them. So nodes that only change an angle's shape become a Reshape, which keeps its
    mark.
    """
    for node in angle_nodes(model):
        mark_precise(node)


def angle_nodes(model: ov.Model) -> list[ov.Node]:
    """The sines and cosines of a graph, and the nodes that compute their angles.

    Consecutive nodes that only change the shape are replaced by one Reshape.
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
    """One Reshape that replaces ``node`` and those before it that only change the shape.

    Where more than one dimension is unknown, ``node`` stays.
    """
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


_MARKS = ("precise", "DisablePrecisionConversion")


def carry_over_marks(source: Path, target: Path) -> None:
    """Copy the marks of nodes in the IR ``source`` (.xml) to those of the same names in ``target``.

    NNCF's copies of a graph lose them.

    Raises:
        RuntimeError: a marked node isn't in ``target``.
    """
    marks = {
        layer.get("name"): attribute
        for layer in ElementTree.parse(source).iterfind("layers/layer")
        for attribute in layer.iterfind("rt_info/attribute")
        if attribute.get("name") in _MARKS
    }
    if not marks:
        return
    tree = ElementTree.parse(target)
    for layer in tree.iterfind("layers/layer"):
        mark = marks.pop(layer.get("name"), None)
        if mark is None:
            continue
        attributes = layer.find("rt_info")
        if attributes is None:
            attributes = ElementTree.Element("rt_info")
            # IR has rt_info after data.
            layer.insert(0 if layer.find("data") is None else 1, attributes)
        if not any(attribute.get("name") in _MARKS for attribute in attributes):
            attributes.append(copy.copy(mark))
    if marks:
        raise RuntimeError(f"{target} has lost the nodes {', '.join(map(str, marks))}")
    tree.write(target, encoding="utf-8", xml_declaration=True)
