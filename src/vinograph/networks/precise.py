"""Attributes of nodes that OpenVINO's Python interface can copy, but not make.

Two of them matter. *Precise* nodes are computed in f32 even where the rest runs in bf16 or f16. A *decompression* is
a conversion of a stored weight to f32, which must survive constant folding, so that the weight stays small. Both are
taken from a small graph that has them, read once a process.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import openvino as ov

from vinograph.runtime.devices import core

# Sin(Convert(Constant)): the sine is precise, the conversion is a decompression.
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
    """Have ``node`` computed in f32 in every precision."""
    _copy_attributes("precise", node)


def mark_decompression(node: ov.Node) -> None:
    """Keep ``node``, which converts a stored weight, out of constant folding."""
    _copy_attributes("decompression", node)


def _copy_attributes(kind: str, node: ov.Node) -> None:
    for key, value in _attributes()[kind].items():
        node.set_rt_info(value, key)


@cache
def _attributes() -> dict[str, dict[str, Any]]:
    """The attributes of the example's nodes, by the nodes' names."""
    weights = ov.Tensor(np.zeros(2, np.uint8))
    model = core().read_model(_EXAMPLE.encode(), weights)
    found = {node.get_friendly_name(): dict(node.get_rt_info().items()) for node in model.get_ops()}
    for kind in ("precise", "decompression"):
        if not found.get(kind):
            raise RuntimeError(f"OpenVINO {ov.get_version()} has no attribute for nodes that are {kind}")
    return found
