"""IR on disk: the files that OpenVINO's own writer makes, by copies inside the kernel."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.runtime import ir, mappings

LARGE = 3 * 65536  # values; more bytes than are written from memory in any case


@pytest.fixture
def weights(tmp_path: Path) -> NDArray[np.float16]:
    """Values in f16, mapped from a file."""
    file = tmp_path / "weights.bin"
    np.random.default_rng(0).standard_normal(LARGE + 8).astype(np.float16).tofile(file)
    return np.memmap(file, np.float16, "c")


def constant(array: NDArray[Any], kind: ov.Type) -> ov.Node:
    """A constant that refers to the array, which has to outlive it."""
    return ov.op.Constant(ov.Tensor(array, ov.Shape(array.shape), kind), shared_memory=True)


def model_of(*constants: ov.Node) -> ov.Model:
    """A graph that gives each constant, converted to f32."""
    results = [opset.result(opset.convert(each, "f32")) for each in constants]
    return ov.Model(results, [], "constants")


def int4(values: NDArray[Any]) -> ov.Node:
    """A constant in 4 bits."""
    return ov.op.Constant(ov.Type.u4, ov.Shape(values.shape), values.reshape(-1).tolist())


def various(mapped: NDArray[np.float16]) -> ov.Model:
    """A graph with all kinds of constants: mapped ones, equal ones, a scalar, one in 4 bits, and one that is empty."""
    return model_of(
        constant(mapped[3 : 3 + LARGE // 2], ov.Type.f16),
        constant(mapped[-8:], ov.Type.f16),
        opset.constant(np.array(mapped[3 : 3 + LARGE // 2])),
        opset.constant(np.arange(LARGE, dtype=np.float32)),
        opset.constant(np.float32(0.5)),
        opset.constant(np.float32(0.5)),
        int4(np.arange(15).reshape(3, 5)),
        opset.constant(np.zeros((0, 3), np.float32)),
        constant(mapped[5 + LARGE // 2 :], ov.Type.f16),
    )


def both(folder: Path, name: str) -> tuple[bytes, bytes]:
    """The contents of both files of a graph."""
    return (folder / f"{name}.xml").read_bytes(), (folder / f"{name}.bin").read_bytes()


def test_the_files_are_those_of_openvino(tmp_path: Path, weights: NDArray[np.float16]) -> None:
    model = various(weights)
    digest = ir.save(model, tmp_path / "ours.xml")
    ov.save_model(model, tmp_path / "theirs.xml", compress_to_fp16=False)
    assert both(tmp_path, "ours") == both(tmp_path, "theirs")
    assert digest == hashlib.sha256(both(tmp_path, "ours")[1]).hexdigest()


def test_what_was_read_from_ir_is_written_again(tmp_path: Path, weights: NDArray[np.float16]) -> None:
    ir.save(various(weights), tmp_path / "first.xml")
    ir.save(ov.Core().read_model(tmp_path / "first.xml"), tmp_path / "second.xml")
    assert both(tmp_path, "second")[1] == both(tmp_path, "first")[1]


def test_a_graph_within_a_graph_is_written(tmp_path: Path) -> None:
    """OpenVINO's writer does that, whose weights lie in an order of its own."""
    condition, x = opset.parameter([], ov.Type.boolean, name="condition"), opset.parameter([2], ov.Type.f32, name="x")
    branches = []
    for value in (3.0, 5.0):
        inner = opset.parameter([2], ov.Type.f32)
        branches.append(ov.Model([opset.multiply(inner, np.full(2, value, np.float32))], [inner], "branch"))
    choice = opset.if_op(condition)
    choice.set_then_body(branches[0])
    choice.set_else_body(branches[1])
    choice.set_input(x.output(0), branches[0].get_parameters()[0], branches[1].get_parameters()[0])
    result = choice.set_output(branches[0].get_results()[0], branches[1].get_results()[0])
    digest = ir.save(ov.Model([result], [condition, x], "nested"), tmp_path / "model.xml")
    assert digest == hashlib.sha256(both(tmp_path, "model")[1]).hexdigest()
    compiled = ov.Core().compile_model(tmp_path / "model.xml", "CPU")
    for value, expected in ((True, 3), (False, 5)):
        (output,) = compiled([np.array(value), np.ones(2, np.float32)]).values()
        assert output.tolist() == [expected, expected]


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="Linux alone copies inside the kernel")
class TestCopies:
    """What is copied inside the kernel, and what can't be."""

    @pytest.fixture
    def copied(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The sizes of the copies that the kernel made."""
        sizes: list[int] = []
        copy = os.copy_file_range

        def counted(*given: Any) -> int:
            sizes.append(copy(*given))
            return sizes[-1]

        monkeypatch.setattr(os, "copy_file_range", counted)
        return sizes

    def test_mapped_weights_are_copied_in_the_kernel(
        self, tmp_path: Path, weights: NDArray[np.float16], copied: list[int]
    ) -> None:
        ir.save(model_of(constant(weights[3:], ov.Type.f16)), tmp_path / "model.xml")
        assert sum(copied) == weights[3:].nbytes
        assert both(tmp_path, "model")[1] == weights[3:].tobytes()

    def test_weights_changed_in_memory_are_written_from_there(
        self, tmp_path: Path, weights: NDArray[np.float16], copied: list[int]
    ) -> None:
        weights[7] = 42
        ir.save(model_of(constant(weights, ov.Type.f16)), tmp_path / "model.xml")
        assert not copied
        assert np.frombuffer(both(tmp_path, "model")[1], np.float16)[7] == 42

    def test_weights_whose_file_was_replaced_are_written_from_memory(
        self, tmp_path: Path, weights: NDArray[np.float16], copied: list[int]
    ) -> None:
        expected = weights.tobytes()
        np.zeros_like(weights).tofile(tmp_path / "other.bin")
        (tmp_path / "other.bin").replace(tmp_path / "weights.bin")
        ir.save(model_of(constant(weights, ov.Type.f16)), tmp_path / "model.xml")
        assert not copied
        assert both(tmp_path, "model")[1] == expected

    @pytest.mark.parametrize("after", [0, 1])
    def test_where_the_kernel_cannot_copy_the_rest_is_written(
        self, tmp_path: Path, weights: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch, after: int
    ) -> None:
        copy, calls = os.copy_file_range, iter(range(100))

        def fail(source: int, target: int, count: int, offset: int) -> int:
            if next(calls) >= after:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            return copy(source, target, min(count, 1000), offset)

        monkeypatch.setattr(os, "copy_file_range", fail)
        ir.save(model_of(constant(weights, ov.Type.f16)), tmp_path / "model.xml")
        assert both(tmp_path, "model")[1] == weights.tobytes()

    def test_without_a_list_of_mappings_all_is_written(
        self, tmp_path: Path, weights: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch, copied: list[int]
    ) -> None:
        monkeypatch.setattr(mappings, "_MAPS", tmp_path / "none")
        ir.save(model_of(constant(weights, ov.Type.f16)), tmp_path / "model.xml")
        assert not copied
        assert both(tmp_path, "model")[1] == weights.tobytes()


def test_it_can_be_stopped(tmp_path: Path, weights: NDArray[np.float16]) -> None:
    stopped = Event()
    stopped.set()
    with pytest.raises(InterruptedError, match="stopped"):
        ir.save(various(weights), tmp_path / "model.xml", stopped)


@pytest.mark.parametrize("other", [lambda text: text.replace('size="30"', 'size="32"'), lambda text: text[:0]])
def test_a_writer_that_disagrees_is_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Callable[[str], str]
) -> None:
    serialize = ov.serialize

    def changed(model: ov.Model, file: Path, weights: str) -> None:
        serialize(model, file, weights)
        file.write_text(other(file.read_text().replace("</net>", "")) + "</net>", encoding="utf-8")

    monkeypatch.setattr(ov, "serialize", changed)
    with pytest.raises(RuntimeError, match="30"):
        ir.save(model_of(opset.constant(np.zeros(15, np.float16))), tmp_path / "model.xml")
