"""The layers that networks share, each a function of a value and of the scope of its weights.

Feature maps are [batch, channels, height, width], sequences [batch, positions, width]. Parameters have PyTorch's
names: ``weight`` and ``bias``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from vinograph.networks.graph import Weights
from vinograph.networks.values import Value, constant

Sides = int | tuple[int, int]

MASKED_SCORE = -30_000.0
"""Added to a score where a token must not attend: its exponential is 0 in f32, and f16 and bf16 can hold it."""


def linear(x: Value, weights: Weights, width: int, *, bias: bool = True) -> Value:
    """x [..., n] -> x W^T + b [..., width], W being [width, n]."""
    matrix = weights.matrix("weight", (width, x.size(-1)))
    product = Value(opset.matmul(x.output, matrix.output, False, True)).named(weights.scope)
    return product + weights.vector("bias", (width,), _last(x, width)) if bias else product


def conv2d(
    x: Value,
    weights: Weights,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: Sides = 0,
    depthwise: bool = False,
    bias: bool = True,
) -> Value:
    """x [b, c, h, w] -> [b, channels, …], zeros being outside.

    ``padding`` is how many of them before and after each side, or a pair of both. With ``depthwise`` every channel has
    a kernel of its own.
    """
    shape = (channels, 1 if depthwise else x.size(1), kernel, kernel)
    kernels = weights.matrix("weight", shape, (channels, 1, 1, kernel, kernel) if depthwise else shape)
    product = convolve(x, kernels, stride=stride, padding=padding).named(weights.scope)
    return product + weights.vector("bias", (channels,), (1, channels, 1, 1)) if bias else product


def convolve(x: Value, kernels: Value, *, stride: int = 1, padding: Sides = 0) -> Value:
    """x [b, c, h, w] -> [b, channels, …], by kernels [channels, c, k, k].

    Kernels [c, 1, 1, k, k] are of each channel alone.
    """
    before, after = (padding, padding) if isinstance(padding, int) else padding
    sides = ([stride, stride], [before, before], [after, after], [1, 1])
    operation = opset.convolution if kernels.rank == 4 else opset.group_convolution
    return Value(operation(x.output, kernels.output, *sides))


def conv_transpose2d(x: Value, weights: Weights, channels: int, kernel: int, *, stride: int, padding: int = 0) -> Value:
    """What spreads each value of x [b, c, h, w] over a square of the result: [b, channels, stride · h, stride · w].

    The kernel is stride + 2 · padding on a side. PyTorch's weights have the channels of x first.
    """
    matrix = weights.matrix("weight", (x.size(1), channels, kernel, kernel))
    sides, strides = [padding, padding], [stride, stride]
    product = Value(
        opset.convolution_backprop_data(
            x.output, matrix.output, strides, pads_begin=sides, pads_end=sides, dilations=[1, 1]
        )
    )
    product.named(weights.scope)
    return product + weights.vector("bias", (channels,), (1, channels, 1, 1))


def pixel_unshuffle(x: Value, factor: int) -> Value:
    """Squares of pixels as channels: [b, c, h, w] -> [b, c · factor², h / factor, w / factor]."""
    return Value(opset.space_to_depth(x.output, "depth_first", factor))


def pixel_shuffle(x: Value, factor: int) -> Value:
    """Channels as squares of pixels (arXiv 1609.05158): [b, c · factor², h, w] -> [b, c, factor · h, factor · w]."""
    return Value(opset.depth_to_space(x.output, "depth_first", factor))


def group_norm(x: Value, weights: Weights, groups: int, eps: float) -> Value:
    """Channels in groups over their own mean and deviation, then scaled and shifted (arXiv 1803.08494)."""
    channels = x.size(1)
    scale, shift = (weights.vector(name, (channels,)) for name in ("weight", "bias"))
    return Value(opset.group_normalization(x.output, scale.output, shift.output, groups, eps))


def normalise(x: Value, axis: int, eps: float) -> Value:
    """x less its mean over ``axis``, over its deviation (arXiv 1607.06450, without scale and shift)."""
    axes = opset.constant([axis if axis >= 0 else x.rank + axis], ov.Type.i32)
    return Value(opset.mvn(x.output, axes, True, eps, "inside_sqrt"))


def layer_norm(x: Value, weights: Weights, eps: float = 1e-5) -> Value:
    """x [..., n] over its mean and deviation, then scaled and shifted (arXiv 1607.06450)."""
    width = x.size(-1)
    view = _last(x, width)
    scale, shift = (weights.vector(name, (width,), view) for name in ("weight", "bias"))
    return normalise(x, -1, eps) * scale + shift


def embedding(indices: Value, weights: Weights, count: int, width: int) -> Value:
    """Rows of a table [count, width]: indices [...] -> [..., width]."""
    table = weights.matrix("weight", (count, width))
    return Value(opset.gather(table.output, indices.output, opset.constant(0, ov.Type.i32))).named(weights.scope)


def silu(x: Value) -> Value:
    """x times its sigmoid (arXiv 1702.03118)."""
    return Value(opset.swish(x.output))


def gelu(x: Value, *, approximate: bool = False) -> Value:
    """x times the normal distribution's integral up to it (arXiv 1606.08415), or its approximation by tanh."""
    return Value(opset.gelu(x.output, "tanh" if approximate else "erf"))


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    return Value(opset.sigmoid(x.output))


def relu(x: Value) -> Value:
    """The larger of x and 0."""
    return Value(opset.relu(x.output))


def tanh(x: Value) -> Value:
    """The hyperbolic tangent."""
    return Value(opset.tanh(x.output))


def split_heads(x: Value, count: int) -> Value:
    """[b, n, count · width] -> [b, count, n, width]."""
    return transpose(reshape(x, (0, 0, count, x.size(-1) // count)), (0, 2, 1, 3))


def merge_heads(x: Value) -> Value:
    """[b, count, n, width] -> [b, n, count · width]."""
    return reshape(transpose(x, (0, 2, 1, 3)), (0, 0, x.size(1) * x.size(3)))


def attention(
    queries: Value, keys: Value, values: Value, mask: Value | None = None, scale: float | None = None
) -> Value:
    """Scaled dot-product attention (arXiv 1706.03762, section 3.2.1), in one operation, which OpenVINO fuses.

    ``mask`` is added to the scores; ``scale`` multiplies them, and is 1/√width where it is None.
    """
    factor = None if scale is None else opset.constant(np.float32(scale))
    return Value(
        opset.scaled_dot_product_attention(
            queries.output,
            keys.output,
            values.output,
            None if mask is None else mask.output,
            factor,
            causal=False,
        )
    )


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """x in another shape, in which 0 is the dimension that x has in that place, and -1 what is left."""
    return Value(opset.reshape(x.output, opset.constant(list(shape), ov.Type.i64), special_zero=True))


def reshape_like(x: Value, like: Value) -> Value:
    """x in the shape of ``like``."""
    return Value(opset.reshape(x.output, opset.shape_of(like.output), special_zero=False))


def transpose(x: Value, axes: Sequence[int]) -> Value:
    """x with its dimensions in another order."""
    return Value(opset.transpose(x.output, opset.constant(list(axes), ov.Type.i32)))


def concat(values: Sequence[Value], axis: int) -> Value:
    """The values one after another along ``axis``."""
    return Value(opset.concat([value.output for value in values], axis))


def split(x: Value, parts: int, axis: int) -> list[Value]:
    """``parts`` equal pieces of x along ``axis``, whose size is known."""
    sizes = [x.size(axis) // parts] * parts
    node = opset.variadic_split(x.output, opset.constant(axis, ov.Type.i64), opset.constant(sizes, ov.Type.i64))
    return [Value(output) for output in node.outputs()]


def upsample(x: Value, factor: int = 2) -> Value:
    """A feature map ``factor`` times as high and wide, each value repeated."""
    scales = opset.constant(np.full(2, factor, np.float32))
    return Value(_nearest(x, scales, "scales"))


def upsample_like(x: Value, like: Value) -> Value:
    """A feature map as high and wide as ``like``, of the nearest values."""
    shape = opset.shape_of(like.output)
    sizes = opset.gather(shape, opset.constant([2, 3], ov.Type.i64), opset.constant(0, ov.Type.i64))
    return Value(_nearest(x, sizes, "sizes"))


def _nearest(x: Value, sizes: ov.Node, kind: str) -> ov.Node:
    axes = opset.constant([2, 3], ov.Type.i64)
    return opset.interpolate(
        x.output,
        sizes,
        "nearest",
        kind,
        axes=axes,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def dynamic_size(x: Value, axis: int) -> Value:
    """A dimension that follows the request: a number in i64."""
    shape = opset.shape_of(x.output)
    return Value(opset.gather(shape, opset.constant(axis, ov.Type.i64), opset.constant(0, ov.Type.i64)))


def arange_like(like: Value, axis: int) -> Value:
    """0, 1, 2 … as many as ``like`` has along ``axis``, in i64."""
    zero, one = opset.constant(0, ov.Type.i64), opset.constant(1, ov.Type.i64)
    return Value(opset.range(zero, dynamic_size(like, axis).output, one, "i64"))


def visible_keys(mask: Value) -> Value:
    """Where a mask [b, n] in i64 is not 0, in the place of keys among scores: boolean [b, 1, 1, n]."""
    seen = Value(opset.not_equal(mask.output, constant(0, np.int64).output))
    return reshape(seen, (0, 1, 1, -1))


def attention_bias(visible: Value) -> Value:
    """What is added to scores: 0 where ``visible`` (boolean) is true, else :data:`MASKED_SCORE`."""
    return Value(opset.select(visible.output, constant(0.0).output, constant(MASKED_SCORE).output))


def _last(x: Value, width: int) -> tuple[int, ...]:
    """The shape in which a vector lies along the last dimension of x."""
    return (*(1,) * (x.rank - 1), width)
