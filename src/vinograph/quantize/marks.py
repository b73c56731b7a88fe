"""Nodes that are computed in f32 whatever the rest is computed in, such as the waves of times and sizes.

NNCF's copies lose the attribute that says so, and OpenVINO's Python interface can neither read nor set it.
"""

from __future__ import annotations

import copy
from pathlib import Path
from xml.etree import ElementTree

_MARKS = ("precise", "DisablePrecisionConversion")


def carry_over(source: Path, target: Path) -> None:
    """Give the nodes of the IR ``target`` (.xml) the marks that those of the same names have in ``source``."""
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
        told = layer.find("rt_info")
        if told is None:
            told = ElementTree.Element("rt_info")
            layer.insert(0 if layer.find("data") is None else 1, told)
        if not any(attribute.get("name") in _MARKS for attribute in told):
            told.append(copy.copy(mark))
    if marks:
        raise RuntimeError(f"{target} has lost the nodes {', '.join(map(str, marks))}")
    tree.write(target, encoding="utf-8", xml_declaration=True)
