"""The layers that networks share: functions of a value and of the scope of its weights.

Feature maps are [batch, channels, height, width], sequences [batch, positions, width]. Parameters
have PyTorch's names: ``weight`` and ``bias``.
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
"""Added to the score of a key that is not seen: f16 and bf16 hold it, and its exponential is 0."""


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
    """A convolution, padded with zeros: x [b, c, h, w] -> [b, channels, h', w'].

    ``padding`` is the number of zeros on each side, or a pair: those above and left, and those
    below and right. With ``depthwise`` every channel has a kernel of its own.
    """
    shape = (channels, 1 if depthwise else x.size(1), kernel, kernel)
    kernels = weights.matrix("weight", shape, (channels, 1, 1, kernel, kernel) if depthwise else shape)
    product = convolve(x, kernels, stride=stride, padding=padding).named(weights.scope)
    return product + weights.vector("bias", (channels,), (1, channels, 1, 1)) if bias else product


def convolve(x: Value, kernels: Value, *, stride: int = 1, padding: Sides = 0) -> Value:
    """A convolution of x [b, c, h, w] by kernels [channels, c, k, k]: [b, channels, h', w'].

    Kernels [c, 1, 1, k, k] make it depthwise.
    """
    before, after = (padding, padding) if isinstance(padding, int) else padding
    sides = ([stride, stride], [before, before], [after, after], [1, 1])
    operation = opset.convolution if kernels.rank == 4 else opset.group_convolution
    return Value(operation(x.output, kernels.output, *sides))


def conv_transpose2d(x: Value, weights: Weights, channels: int, kernel: int, *, stride: int, padding: int = 0) -> Value:
    """A transposed convolution: x [b, c, h, w] -> [b, channels, stride · h, stride · w].

    The kernel has stride + 2 · padding values on a side. PyTorch's weights have the channels of x
    first.
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
    """Channels as squares of pixels: [b, c · factor², h, w] -> [b, c, factor · h, factor · w].

    Shi et al. (arXiv 1609.05158).
    """
    return Value(opset.depth_to_space(x.output, "depth_first", factor))


def group_norm(x: Value, weights: Weights, groups: int, eps: float) -> Value:
    """Group normalization (Wu and He, arXiv 1803.08494) of x [b, c, …], scaled and shifted."""
    channels = x.size(1)
    scale, shift = (weights.vector(name, (channels,)) for name in ("weight", "bias"))
    return Value(opset.group_normalization(x.output, scale.output, shift.output, groups, eps))


def normalise(x: Value, axis: int, eps: float) -> Value:
    """Layer normalization over ``axis`` (arXiv 1607.06450), without scale and shift."""
    axes = opset.constant([axis if axis >= 0 else x.rank + axis], ov.Type.i32)
    return Value(opset.mvn(x.output, axes, True, eps, "inside_sqrt"))


def layer_norm(x: Value, weights: Weights, eps: float = 1e-5) -> Value:
    """Layer normalization of x [..., n] (Ba et al., arXiv 1607.06450), scaled and shifted."""
    width = x.size(-1)
    view = _last(x, width)
    scale, shift = (weights.vector(name, (width,), view) for name in ("weight", "bias"))
    return normalise(x, -1, eps) * scale + shift


def embedding(indices: Value, weights: Weights, count: int, width: int) -> Value:
    """Rows of the table [count, width] at ``indices``: [...] -> [..., width]."""
    table = weights.matrix("weight", (count, width))
    return Value(opset.gather(table.output, indices.output, opset.constant(0, ov.Type.i32))).named(weights.scope)


def silu(x: Value) -> Value:
    """SiLU: x times its sigmoid (arXiv 1702.03118)."""
    return Value(opset.swish(x.output))


def gelu(x: Value, *, approximate: bool = False) -> Value:
    """GELU: x Φ(x) (Hendrycks and Gimpel, arXiv 1606.08415), or its approximation by tanh."""
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
    """Heads in a dimension of their own: [b, n, count · width] -> [b, count, n, width]."""
    return transpose(reshape(x, (0, 0, count, x.size(-1) // count)), (0, 2, 1, 3))


def merge_heads(x: Value) -> Value:
    """The inverse of :func:`split_heads`: [b, count, n, width] -> [b, n, count · width]."""
    return reshape(transpose(x, (0, 2, 1, 3)), (0, 0, x.size(1) * x.size(3)))


def attention(
    queries: Value, keys: Value, values: Value, mask: Value | None = None, scale: float | None = None
) -> Value:
    """Scaled dot-product attention (Vaswani et al., arXiv 1706.03762, section 3.2.1).

    It is one operation, which OpenVINO fuses. Queries are [b, heads, n, width], keys and values [b,
    heads, m, width]. ``mask`` is added to the scores [b, heads, n, m]. ``scale`` multiplies them;
    None is 1/√width.
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
    """x in another shape, in which 0 stands for the size that x has there, and -1 for the rest."""
    return Value(opset.reshape(x.output, opset.constant(list(shape), ov.Type.i64), special_zero=True))


def reshape_like(x: Value, like: Value) -> Value:
    """x in the shape of ``like``."""
    return Value(opset.reshape(x.output, opset.shape_of(like.output), special_zero=False))


def transpose(x: Value, axes: Sequence[int]) -> Value:
    """x with its dimensions in the order ``axes``."""
    return Value(opset.transpose(x.output, opset.constant(list(axes), ov.Type.i32)))


def concat(values: Sequence[Value], axis: int) -> Value:
    """The values joined along ``axis``."""
    return Value(opset.concat([value.output for value in values], axis))


def split(x: Value, parts: int, axis: int) -> list[Value]:
    """``parts`` equal pieces of x along ``axis``, whose size has to be fixed."""
    sizes = [x.size(axis) // parts] * parts
    node = opset.variadic_split(x.output, opset.constant(axis, ov.Type.i64), opset.constant(sizes, ov.Type.i64))
    return [Value(output) for output in node.outputs()]


def upsample(x: Value, factor: int = 2) -> Value:
    """Nearest upsampling: x [b, c, h, w] -> [b, c, factor · h, factor · w]."""
    scales = opset.constant(np.full(2, factor, np.float32))
    return Value(_nearest(x, scales, "scales"))


def upsample_like(x: Value, like: Value) -> Value:
    """Nearest upsampling of x [b, c, h, w] to the height and width of ``like``."""
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
    """The size of a dimension that depends on the request, as a number in i64."""
    shape = opset.shape_of(x.output)
    return Value(opset.gather(shape, opset.constant(axis, ov.Type.i64), opset.constant(0, ov.Type.i64)))


def arange_like(like: Value, axis: int) -> Value:
    """0, 1, 2, … in i64, as many as ``like`` has values along ``axis``."""
    zero, one = opset.constant(0, ov.Type.i64), opset.constant(1, ov.Type.i64)
    return Value(opset.range(zero, dynamic_size(like, axis).output, one, "i64"))


def visible_keys(mask: Value) -> Value:
    """Which keys an attention mask lets through: [b, n] in i64 -> boolean [b, 1, 1, n]."""
    seen = Value(opset.not_equal(mask.output, constant(0, np.int64).output))
    return reshape(seen, (0, 1, 1, -1))


def attention_bias(visible: Value) -> Value:
    """What to add to scores: 0 where ``visible`` (boolean) is true, else :data:`MASKED_SCORE`."""
    return Value(opset.select(visible.output, constant(0.0).output, constant(MASKED_SCORE).output))


def _last(x: Value, width: int) -> tuple[int, ...]:
    """The shape that lays a vector along the last dimension of x."""
    return (*(1,) * (x.rank - 1), width)
