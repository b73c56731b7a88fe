"""Compressing matrices to int8 and int4 without calibration.

OpenVINO multiplies by them as they are. The forms are NNCF's INT8_ASYM and INT4_SYM. In int8 each
row of a matrix has a scale and a zero point. In int4 a row is cut into groups with a scale each.
Tables of token embeddings are compressed in the same way, in smaller groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

COMPRESSED = ("int8", "int4")

# With these, T5-XXL is 3.93 times smaller than in f16. Groups of 128, or its table in int8, would
# stay below 3.9.
GROUP = 256
TABLE_GROUP = 32
_SMALLEST_GROUP = 16
_ROWS = 1024  # that are compressed at once

StoreBytes = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def compress(model: ov.Model, weights: str, store: StoreBytes) -> None:
    """Store a graph's matrices and token tables as ``weights``: "int8" or "int4".

    They are constants [out, in] in f16 or f32. One at a time is held in full; ``store`` makes the
    array for the result.
    """
    for constant, is_table in list(_matrices(model)):
        users = [user for each in _restored(constant) for user in each.get_target_inputs()]
        values, group = constant.data, TABLE_GROUP if is_table else GROUP
        small = _int8(values, store) if weights == "int8" else _int4(values, group, store)
        restored = opset.convert(small, "f32").output(0)
        for user in users:
            if user.get_node().get_type_name() != "Convert":
                user.replace_source_output(restored)


def _matrices(model: ov.Model) -> Iterator[tuple[ov.Node, bool]]:
    """The constants to compress, each with whether it is a table that ids look rows up in."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or len(node.shape) != 2 or 1 in node.shape:
            continue
        for user in (user for each in _restored(node) for user in each.get_target_inputs()):
            kind, place = user.get_node().get_type_name(), user.get_index()
            if (kind == "MatMul" and place == 1) or (kind == "Gather" and _are_ids(user.get_node().input_value(1))):
                yield node, kind == "Gather"
                break


def _restored(constant: ov.Node) -> list[ov.Output]:
    """The constant's output, and those of its conversions."""
    plain = constant.output(0)
    users = [user.get_node() for user in plain.get_target_inputs()]
    return [plain, *(user.output(0) for user in users if user.get_type_name() == "Convert")]


def _are_ids(indices: ov.Output) -> bool:
    """Whether a lookup is by ids: its indices are an input of the graph."""
    node = indices.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Parameter")


def _int8(values: NDArray[np.float32], store: StoreBytes) -> ov.Node:
    """(stored - zero point) · scale, with a scale and a zero point for each row, in f16."""
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
    number, zero = (opset.convert(_constant(each, ov.Type.u8, store), "f16") for each in (stored, zeros))
    return opset.multiply(opset.subtract(number, zero), opset.constant(scales))


def _int4(values: NDArray[np.float32], group: int, store: StoreBytes) -> ov.Node:
    """stored · scale, with a scale for each group of a row, in f16.

    The value with the largest magnitude in a group is stored as -8, so that the whole range is
    used.
    """
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
    number = opset.convert(_constant(packed, ov.Type.i4, store, grouped), "f16")
    whole = opset.constant([rows, width], ov.Type.i64)
    return opset.reshape(opset.multiply(number, opset.constant(scales)), whole, special_zero=False)


def group_size(width: int, most: int) -> int:
    """The largest power of two up to ``most`` that divides ``width``; ``width`` if it is small."""
    size = math.gcd(width, most)
    return size if size >= _SMALLEST_GROUP else width


def _parts(rows: int) -> Iterator[slice]:
    """Slices of rows; an even number in all but the last, so that no byte crosses two slices."""
    return (slice(begin, min(begin + _ROWS, rows)) for begin in range(0, rows, _ROWS))


def _storable(scales: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scales within f16's range; the least is above zero, also where all values are zero."""
    floor: NDArray[np.float32] = np.maximum(scales, np.finfo(np.float16).tiny).astype(np.float32)
    return floor


def _constant(
    data: NDArray[np.uint8], kind: ov.Type, store: StoreBytes, shape: tuple[int, ...] | None = None
) -> ov.Node:
    tensor = ov.Tensor(store(data), ov.Shape(shape or data.shape), kind)
    return ov.op.Constant(tensor, shared_memory=True)
