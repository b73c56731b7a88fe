"""Matrices in 8 or 4 bits, without data, in the patterns that OpenVINO multiplies by without restoring the whole.

Both are what NNCF calls INT8_ASYM and INT4_SYM: in int8 a row of a matrix has a scale and a zero point, in int4 it is
cut into groups with a scale each. Tables that ids look rows up in are compressed likewise, in smaller groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

COMPRESSED = ("int8", "int4")

# T5-XXL is 3.93 times smaller than in f16 then; with groups of 128, or its table in int8, it would not be 3.9 times.
GROUP = 256
TABLE_GROUP = 32
_SMALLEST_GROUP = 16
_ROWS = 1024  # that are worked on at once

Keep = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def compress(model: ov.Model, weights: str, keep: Keep) -> None:
    """Store the matrices of ``model`` that it multiplies by, and its tables of tokens, as ``weights``: "int8", "int4".

    They are constants in f16 or f32, [out, in]. One is held in full at a time; ``keep`` says where the result lies.
    """
    for constant, is_table in list(_matrices(model)):
        users = [user for each in _restored(constant) for user in each.get_target_inputs()]
        values, group = constant.data, TABLE_GROUP if is_table else GROUP
        small = _int8(values, keep) if weights == "int8" else _int4(values, group, keep)
        restored = opset.convert(small, "f32").output(0)
        for user in users:
            if user.get_node().get_type_name() != "Convert":
                user.replace_source_output(restored)


def _matrices(model: ov.Model) -> Iterator[tuple[ov.Node, bool]]:
    """The constants that are multiplied by, and those in which ids look rows up, which are told by True."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or len(node.shape) != 2 or 1 in node.shape:
            continue
        for user in (user for each in _restored(node) for user in each.get_target_inputs()):
            kind, place = user.get_node().get_type_name(), user.get_index()
            if (kind == "MatMul" and place == 1) or (kind == "Gather" and _are_ids(user.get_node().input_value(1))):
                yield node, kind == "Gather"
                break


def _restored(constant: ov.Node) -> list[ov.Output]:
    """The constant, and what it is converted to."""
    plain = constant.output(0)
    users = [user.get_node() for user in plain.get_target_inputs()]
    return [plain, *(user.output(0) for user in users if user.get_type_name() == "Convert")]


def _are_ids(indices: ov.Output) -> bool:
    node = indices.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Parameter")


def _int8(values: NDArray[np.float32], keep: Keep) -> ov.Node:
    """(stored - zero point) · scale, both for each row, in f16."""
    rows, width = values.shape
    stored = np.empty((rows, width), np.uint8)
    scales, zeros = np.empty((rows, 1), np.float16), np.empty((rows, 1), np.uint8)
    for part in _parts(rows):
        block = values[part].astype(np.float32)
        low = np.minimum(block.min(1, keepdims=True), 0)
        high = np.maximum(block.max(1, keepdims=True), 0)
        scales[part] = _storable((high - low) / 255)
        scale = scales[part].astype(np.float32)
        zeros[part] = np.clip(np.rint(-low / scale), 0, 255)
        stored[part] = np.clip(np.rint(block / scale) + zeros[part], 0, 255)
    number, zero = (opset.convert(_constant(each, ov.Type.u8, keep), "f16") for each in (stored, zeros))
    return opset.multiply(opset.subtract(number, zero), opset.constant(scales))


def _int4(values: NDArray[np.float32], group: int, keep: Keep) -> ov.Node:
    """stored · scale, which each group of a row has, in f16. The group's largest value is stored as -8."""
    rows, width = values.shape
    size = group_size(width, group)
    packed = np.empty(math.ceil(rows * width / 2), np.uint8)
    scales = np.empty((rows, width // size, 1), np.float16)
    for part in _parts(rows):
        block = values[part].astype(np.float32).reshape(-1, width // size, size)
        largest = np.take_along_axis(block, np.abs(block).argmax(2)[..., None], 2)
        scales[part] = np.where(largest > 0, -1, 1) * _storable(np.abs(largest) / np.float32(8))
        stored = np.clip(np.rint(block / scales[part].astype(np.float32)), -8, 7).astype(np.int8).ravel()
        nibbles = np.pad(stored.view(np.uint8) & 15, (0, stored.size % 2))
        begin = part.start * width // 2
        packed[begin : begin + nibbles.size // 2] = nibbles[::2] | nibbles[1::2] << 4
    grouped = (rows, width // size, size)
    number = opset.convert(_constant(packed, ov.Type.i4, keep, grouped), "f16")
    whole = opset.constant([rows, width], ov.Type.i64)
    return opset.reshape(opset.multiply(number, opset.constant(scales)), whole, special_zero=False)


def group_size(width: int, most: int) -> int:
    """The largest power of two up to ``most`` that divides a row's width; the whole row where that is too small."""
    size = math.gcd(width, most)
    return size if size >= _SMALLEST_GROUP else width


def _parts(rows: int) -> Iterator[slice]:
    """Slices of an even number of rows, but for the last: halves of bytes don't cross them."""
    return (slice(begin, min(begin + _ROWS, rows)) for begin in range(0, rows, _ROWS))


def _storable(scales: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scales that f16 holds: none is zero, where all values are."""
    floor: NDArray[np.float32] = np.maximum(scales, np.finfo(np.float16).tiny).astype(np.float32)
    return floor


def _constant(data: NDArray[np.uint8], kind: ov.Type, keep: Keep, shape: tuple[int, ...] | None = None) -> ov.Node:
    tensor = ov.Tensor(keep(data), ov.Shape(shape or data.shape), kind)
    return ov.op.Constant(tensor, shared_memory=True)
