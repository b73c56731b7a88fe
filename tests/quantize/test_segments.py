"""Graphs in segments: the segments, and what is joined from them, compute what the whole does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from vinograph.models.bundle import Bundle
from vinograph.quantize import segments
from vinograph.runtime.precise import carry_over_marks

MARK = '<rt_info><attribute name="precise" version="0" /></rt_info>'


@pytest.fixture
def xml(sdxl: Bundle) -> Path:
    return sdxl.path / "unet.xml"


@pytest.fixture
def inputs(xml: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sizes = {"sample": (2, 4, 8, 8), "timestep": (2,), "encoder_hidden_states": (2, 20, 16)}
    sizes |= {"text_embeds": (2, 8), "time_ids": (2, 6)}
    return {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}


def compute(model: ov.Model, inputs: dict[str, Any]) -> list[Any]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [value.copy() for value in compiled(inputs).values()]


@pytest.mark.usefixtures("small_segments")
def test_segments_compute_what_the_whole_does(xml: Path, inputs: dict[str, Any], tmp_path: Path) -> None:
    shapes = segments.node_shapes(xml, {name: value.shape for name, value in inputs.items()})
    found = segments.find_segments(xml, shapes)
    assert len(found) > 2
    keys = segments.input_value_keys(xml)
    values = {keys[name]: value for name, value in inputs.items()}
    parts = []
    for index, segment in enumerate(found):
        model = segments.cut_out(xml, segment)
        file = tmp_path / f"{index}.xml"
        ov.save_model(model, file, compress_to_fp16=False)
        results = compute(model, {key: values[key] for key in segment.inputs})
        values |= dict(zip(segment.outputs, results, strict=False))
        parts.append((segment, file))
    whole = compute(segments.read_graph(xml), inputs)
    np.testing.assert_allclose(results[0], whole[0], atol=1e-6)
    joined = segments.join(xml, parts)
    np.testing.assert_allclose(compute(joined, inputs)[0], whole[0], atol=1e-6)
    assert [port.get_names() for port in joined.inputs] == [
        port.get_names() for port in segments.read_graph(xml).inputs
    ]
    assert [port.get_names() for port in joined.outputs] == [{"out_sample"}]


def test_a_small_graph_is_one_segment(xml: Path) -> None:
    (only,) = segments.find_segments(xml, {})
    assert only.outputs == ()
    assert len(only.inputs) == 5


@pytest.mark.usefixtures("small_segments")
def test_few_bytes_pass(xml: Path, inputs: dict[str, Any]) -> None:
    """After a block, one feature map passes, and the conditioning of later blocks."""
    shapes = segments.node_shapes(xml, {name: value.shape for name, value in inputs.items()})
    found = segments.find_segments(xml, shapes)
    maps = [key for segment in found for key in segment.outputs if len(shapes[key.rpartition(".")[0]]) == 4]
    assert len(maps) <= 2 * len(found)
    conditioning = sum(4 * value.size for value in inputs.values())
    assert 0 < segments.peak_boundary_bytes(found, shapes) <= conditioning + 4 * 4 * 32 * 64 * 2


def test_marks_of_precision_are_carried_over(xml: Path, tmp_path: Path) -> None:
    text = xml.read_text(encoding="utf-8")
    name = next(
        node.get_friendly_name() for node in segments.read_graph(xml).get_ops() if node.get_type_name() == "Sin"
    )
    at = text.index("<input", text.index(f'name="{name}"'))
    (tmp_path / "marked.xml").write_text(text[:at] + MARK + text[at:], encoding="utf-8")
    (tmp_path / "plain.xml").write_text(text, encoding="utf-8")
    carry_over_marks(tmp_path / "marked.xml", tmp_path / "plain.xml")
    assert (tmp_path / "plain.xml").read_text(encoding="utf-8").count('"precise"') == 1
    carry_over_marks(tmp_path / "marked.xml", tmp_path / "plain.xml")
    assert (tmp_path / "plain.xml").read_text(encoding="utf-8").count('"precise"') == 1


def test_a_mark_whose_node_is_gone_is_a_defect(xml: Path, tmp_path: Path) -> None:
    text = xml.read_text(encoding="utf-8")
    name = next(
        node.get_friendly_name() for node in segments.read_graph(xml).get_ops() if node.get_type_name() == "Sin"
    )
    at = text.index("<input", text.index(f'name="{name}"'))
    (tmp_path / "marked.xml").write_text(text[:at] + MARK + text[at:], encoding="utf-8")
    (tmp_path / "plain.xml").write_text(text.replace(f'name="{name}"', 'name="another"'), encoding="utf-8")
    with pytest.raises(RuntimeError, match=name):
        carry_over_marks(tmp_path / "marked.xml", tmp_path / "plain.xml")
