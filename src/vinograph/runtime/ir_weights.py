"""The weights of a graph in OpenVINO's format, under the checkpoint's names, and their replacement.

A weight in f32, f16 or bf16 is a constant with its name. One in 8 or 4 bits is known by its layer:
the constant has a scale, and may have a zero point, for each row or each group of a row.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from vinograph.errors import DamagedModelError
from vinograph.runtime.devices import core

Array = NDArray[np.float32]

# Which input of a layer is its weight.
_LAYERS: Mapping[str, int] = {
    "MatMul": 1,
    "Convolution": 1,
    "GroupConvolution": 1,
    "ConvolutionBackpropData": 1,
    "Gather": 0,
}
_FLOATS: Mapping[str, str] = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
# Bits of a stored number, and the least and the greatest that are stored where no zero point is.
_LOW_BITS: Mapping[str, tuple[int, int, int]] = {
    "u8": (8, 0, 255),
    "i8": (8, -127, 127),
    "u4": (4, 0, 15),
    "i4": (4, -8, 7),
}
_PASSED = ("Convert", "Subtract", "Multiply", "Reshape")
_UNNAMED = re.compile(r"[A-Za-z]+_\w*\d+")


@dataclass(frozen=True)
class FloatWeight:
    """A weight that is stored as floating-point numbers, as a tensor of a checkpoint is."""

    constant: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions, without those of size 1 that place it along others."""
        return _plain_shape(tuple(self.constant.shape))

    @property
    def dtype(self) -> str:
        """Its type as safetensors names it."""
        return _FLOATS[self.constant.get_output_element_type(0).get_type_name()]

    def array(self) -> NDArray[Any]:
        """Its values, mapped from the file; BF16 as uint16."""
        data: NDArray[Any] = self.constant.get_tensor_view().data
        return (data.view(np.uint16) if self.dtype == "BF16" else data).reshape(self.shape)

    def put(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Put the one array of ``arrays``, which is of the same type, in its place."""
        _replace(self.constant, arrays[0])


@dataclass(frozen=True)
class LowBitWeight:
    """A weight in 8 or 4 bits: ``constant``, then the nodes that restore its values, in order."""

    constant: Any
    restoring: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions of the restored weight."""
        return _plain_shape(tuple(self.restoring[-1].get_output_shape(0)))

    @property
    def dtype(self) -> str:
        """The type of its restored values."""
        return "F32"

    @property
    def _kind(self) -> str:
        return str(self.constant.get_output_element_type(0).get_type_name())

    @cached_property
    def _scale(self) -> Any:
        return _constant_of(next(node for node in self.restoring if node.get_type_name() == "Multiply"))

    @cached_property
    def _zero(self) -> Any | None:
        found = next((node for node in self.restoring if node.get_type_name() == "Subtract"), None)
        return None if found is None else _constant_of(found)

    def array(self) -> Array:
        """Its values in f32."""
        values = _numbers(self.constant)
        if self._zero is not None:
            values = values - _numbers(self._zero)
        found: Array = (values * _numbers(self._scale)).reshape(self.shape)
        return found

    @property
    def step(self) -> float:
        """Half the mean distance between two values that can be stored."""
        return float(np.abs(_numbers(self._scale)).mean()) / 2

    def quantized(self, values: Array, name: str) -> list[NDArray[Any]]:
        """Values in f32 as they are stored: the numbers, the scales, and zero points if there are.

        Scales and zero points stay where the values are in their range, and widen where not. Values
        are rounded up or down at random, with the odds that keep their mean: most changes are
        smaller than half a step, and would vanish one and all if they were rounded to the nearest.
        The odds depend on the weight's ``name`` alone.
        """
        values = np.asarray(values, np.float32).reshape(tuple(self.constant.shape))
        bits, least, most = _LOW_BITS[self._kind]
        scale = _numbers(self._scale)
        zero = np.zeros_like(scale) if self._zero is None else np.broadcast_to(_numbers(self._zero), scale.shape)
        if self._zero is not None and self._kind == "i8":
            least = -128
        scale, zero = self._widened(values, scale, zero, (least, most))
        dither = np.random.default_rng(zlib.crc32(name.encode())).random(values.shape, np.float32)
        numbers = np.clip(np.floor(values / scale + zero + dither), least, most).astype(np.int16)
        arrays = [_packed(numbers, bits), _as_type(self._scale, scale)]
        return arrays if self._zero is None else [*arrays, _as_type(self._zero, zero)]

    def put(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Put what :meth:`quantized` made in its place."""
        constants = [self.constant, self._scale, *([] if self._zero is None else [self._zero])]
        for constant, array in zip(constants, arrays, strict=True):
            _replace(constant, array)

    def _widened(self, values: Array, scale: Array, zero: Array, limits: tuple[int, int]) -> tuple[Array, Array]:
        """Scales and zero points whose range holds the values of each row or group."""
        least, most = limits
        axes = tuple(index for index, size in enumerate(scale.shape) if size == 1)
        low = np.minimum(values.min(axes, keepdims=True).reshape(scale.shape), 0)
        high = np.maximum(values.max(axes, keepdims=True).reshape(scale.shape), 0)
        ends = np.stack([(least - zero - 0.5) * scale, (most - zero + 0.5) * scale])
        fits = (low >= ends.min(0)) & (high <= ends.max(0))
        if self._zero is not None:
            wider = _storable((high - low) / (most - least), self._scale)
            zeros = np.clip(np.rint(least - low / wider), least, most)
        elif least == -most:
            wider, zeros = _storable(np.maximum(-low, high) / most, self._scale), zero
        else:  # the greatest magnitude is stored as the least number, which has no opposite
            wider, zeros = _storable(np.maximum(-low, high) / -least, self._scale), zero
            wider = np.where(high > -low, -wider, wider)
        return np.where(fits, scale, wider).astype(np.float32), np.where(fits, zero, zeros).astype(np.float32)


Weight = FloatWeight | LowBitWeight


def weights_of(model: ov.Model) -> dict[str, Weight]:
    """The named weights of a graph."""
    found: dict[str, Weight] = {}
    nodes = model.get_ordered_ops()
    for node in nodes:
        name = node.get_friendly_name()
        kind = node.get_output_element_type(0).get_type_name() if node.get_type_name() == "Constant" else ""
        if kind in _FLOATS and not _UNNAMED.fullmatch(name) and "/" not in name:
            found[name] = FloatWeight(node)
    for node in nodes:
        place = _LAYERS.get(node.get_type_name())
        if place is not None and (low_bit := _low_bit(node.input_value(place).get_node())) is not None:
            found[f"{node.get_friendly_name()}.weight"] = low_bit
    return found


def _low_bit(node: Any) -> LowBitWeight | None:
    """The weight in few bits that a layer's input restores; None where it is another."""
    restoring = []
    while node.get_type_name() in _PASSED:
        restoring.append(node)
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or not restoring:
        return None
    kinds = [each.get_type_name() for each in restoring]
    is_known = node.get_output_element_type(0).get_type_name() in _LOW_BITS and kinds.count("Multiply") == 1
    return LowBitWeight(node, tuple(reversed(restoring))) if is_known and kinds.count("Subtract") <= 1 else None


def _constant_of(node: Any) -> Any:
    """The constant that is a node's second input, behind conversions."""
    found = node.input_value(1).get_node()
    while found.get_type_name() == "Convert":
        found = found.input_value(0).get_node()
    return found


def _plain_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without leading ones, and of vectors the one size that isn't 1."""
    long = [size for size in shape if size > 1]
    if len(long) < 2:
        return (math.prod(shape),)
    first = next(index for index, size in enumerate(shape) if size > 1)
    return shape[first:]


def _numbers(constant: Any) -> Array:
    """A constant's values in f32, with numbers of 4 bits unpacked."""
    kind, shape = constant.get_output_element_type(0).get_type_name(), tuple(constant.shape)
    data = constant.get_tensor_view().data
    if _LOW_BITS.get(kind, (8,))[0] == 8:
        return np.asarray(data, np.float32).reshape(shape)
    packed = data.reshape(-1).view(np.uint8)
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1)[: math.prod(shape)]
    signed = nibbles.astype(np.int8)
    if kind == "i4":
        signed = np.where(signed > 7, signed - 16, signed).astype(np.int8)
    return signed.astype(np.float32).reshape(shape)


def _packed(numbers: NDArray[np.int16], bits: int) -> NDArray[np.uint8]:
    """Whole numbers as bytes, two of 4 bits in one, the first of them below."""
    flat = numbers.reshape(-1).astype(np.int8).view(np.uint8) if numbers.min() < 0 else numbers.reshape(-1)
    flat = flat.astype(np.uint8)
    if bits == 8:
        return flat
    nibbles = np.pad(flat & 15, (0, flat.size % 2))
    packed: NDArray[np.uint8] = nibbles[::2] | nibbles[1::2] << 4
    return packed


def _storable(scale: Array, constant: Any) -> Array:
    """Positive scales, rounded up to what the constant's type holds."""
    if constant.get_output_element_type(0) != ov.Type.f16:
        return np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    rounded = np.maximum(scale, np.finfo(np.float16).tiny).astype(np.float16)
    raised = np.where(rounded.astype(np.float32) < scale, np.nextafter(rounded, np.float16(np.inf)), rounded)
    return raised.astype(np.float32)


def _as_type(constant: Any, values: Array) -> NDArray[Any]:
    """Values as the bytes of a constant's type."""
    kind = constant.get_output_element_type(0).get_type_name()
    if kind in _LOW_BITS:
        return _packed(np.rint(values).astype(np.int16).reshape(-1), _LOW_BITS[kind][0])
    return np.ascontiguousarray(values, np.float16 if kind == "f16" else np.float32)


def _replace(constant: Any, array: NDArray[Any]) -> None:
    """Put a constant that refers to an array in another's place, under its name and in its type."""
    tensor = ov.Tensor(array, ov.Shape(constant.shape), constant.get_output_element_type(0))
    new = ov.op.Constant(tensor, shared_memory=True)
    new.set_friendly_name(constant.get_friendly_name())
    for user in constant.output(0).get_target_inputs():
        user.replace_source_output(new.output(0))


def read_weights(file: Path) -> dict[str, Weight]:
    """The named weights of the graph in ``file`` (.xml), mapped from its .bin.

    Raises:
        DamagedModelError: OpenVINO can't read it.
    """
    try:
        return weights_of(core().read_model(file))
    except RuntimeError as error:
        raise DamagedModelError(f"OpenVINO can't read {file}: {str(error).strip()}") from error
