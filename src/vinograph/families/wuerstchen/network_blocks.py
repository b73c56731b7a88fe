"""The blocks of Würstchen's stages B and C, in the layouts that OpenVINO runs fastest.

Pernias et al., Würstchen (arXiv 2306.00637); residual blocks are ConvNeXt V2's (arXiv 2301.00808).
Successive layers without a nonlinearity between them are folded into one, which is exact in real
arithmetic:

- Stage B's image embedding goes through a 1x1 convolution to c_cond channels and is joined to what
  a linear layer takes. Both are linear, so one layer takes the embedding's channels directly.
- The text's part of an attention's keys goes through ``kv_mapper``, then ``to_k``; its values
  through ``to_v``. Each pair is one layer in a model of small width.
- Global response norm's shift goes into the bias of the layer after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.networks.embeddings import sinusoidal_embedding
from vinograph.networks.graph import Weights
from vinograph.networks.layers import (
    attention,
    concat,
    conv2d,
    gelu,
    linear,
    merge_heads,
    normalise,
    reshape,
    reshape_like,
    silu,
    split,
    split_heads,
    transpose,
)
from vinograph.networks.values import Value, constant
from vinograph.runtime.precise import mark_precise

NORM_EPS = 1e-6
CHANNELS_LAST_WIDTH = 1024
"""Levels of this width and more keep channels last.

1x1 convolutions, which need no transposes, are only 4 to 7% faster there than linear layers, and
those become 1.5 times as fast with weights in int8. Below it convolutions are 16 to 30% faster, and
as fast as int8 linear layers (widths 192 to 640 at 64² to 256², AVX-512 with BF16).
"""
FOLDED_WIDTH = 512
"""The text's layers of at most this width are folded, which makes them smaller.

A drawing computes them once, so that the products of wider ones take longer than they ever save: 13
s of a conversion at the published size, for 0.06 s of a drawing.
"""
_MAX_POSITIONS = 10_000

Text = Iterator[tuple[Value, Value]]
"""The text's keys and values [b, n, c] of each attention block, in order of execution."""


@dataclass(frozen=True)
class Layout:
    """Which dimension of a feature map has the channels, and which have height and width."""

    channels: int
    space: tuple[int, int]

    def view(self, width: int) -> tuple[int, ...]:
        """The shape in which a vector of ``width`` lies along the channels."""
        return (1, 1, 1, width) if self.channels == 3 else (1, width, 1, 1)


FIRST, LAST = Layout(1, (2, 3)), Layout(3, (1, 2))


@dataclass(frozen=True)
class Mapper:
    """The 1x1 convolution of an image embedding from ``channels`` to ``width`` channels."""

    weights: Weights
    channels: int
    width: int

    def check(self) -> None:
        """Check the shapes of both tensors. Raises what :meth:`Weights.values` does."""
        self.weights.mark_used("weight", (self.width, self.channels, 1, 1))
        self.weights.mark_used("bias", (self.width,))

    def matrix(self) -> NDArray[np.float32]:
        """Weights as a matrix [width, channels]."""
        return self.weights.values("weight", (self.width, self.channels, 1, 1)).reshape(self.width, self.channels)

    def bias(self) -> NDArray[np.float32]:
        """Bias [width]."""
        return self.weights.values("bias", (self.width,))


@dataclass(frozen=True)
class Level:
    """Blocks of one width and size, in a row.

    Their ``kinds`` are C residual, T timestep and A attention, with ``head_count`` heads; their
    weights are numbered from ``begin``. ``kernel`` is that of the depthwise convolutions. Levels
    that take the image embedding have a ``mapper``.
    """

    kinds: str
    weights: Weights
    head_count: int
    begin: int = 0
    kernel: int = 3
    mapper: Mapper | None = None

    def __call__(
        self, x: Value, time: Value, text: Text, embedding: Value | None = None, shortcut: Value | None = None
    ) -> Value:
        """x [b, c, h, w], time [b, c_r] -> the shape of x.

        Residual blocks take maps of the same size: all of them the ``embedding``, the first block
        the ``shortcut``.
        """
        layout = _layout_of(x.size(1))
        x, *maps = (_in_layout(each, layout) for each in (x, shortcut, embedding) if each is not None)
        for index, kind in enumerate(self.kinds):
            weights = self.weights[self.begin + index]
            if kind == "C":
                joined = maps if index == 0 or shortcut is None else maps[1:]
                x = residual_block(x, weights, layout, self.kernel, joined, self.mapper)
            elif kind == "T":
                x = timestep_block(x, weights, layout, time)
            else:
                x = attention_block(x, weights, layout, self.head_count, *next(text))
        return _channels_first(x, layout)


def residual_block(
    x: Value,
    weights: Weights,
    layout: Layout,
    kernel: int = 3,
    joined: Sequence[Value] = (),
    mapper: Mapper | None = None,
) -> Value:
    """x + W₂ respond(gelu(W₁ [norm(depthwise(x)), joined])): the shape of x.

    ``joined`` are maps of the same size; with ``mapper`` the last of them is the image embedding.
    """
    width = x.size(layout.channels)
    hidden = channel_norm(_depthwise(x, weights["depthwise"], layout, kernel), layout)
    if joined:
        hidden = concat([hidden, *joined], axis=layout.channels)
    layers = weights["channelwise"]
    expanded = gelu(_expand(hidden, layers[0], 4 * width, layout, mapper))
    responding = expanded * _response(expanded, layers[2], layout)
    return x + _contract(responding, layers[4], width, layout, shift=layers[2])


def timestep_block(x: Value, weights: Weights, layout: Layout, time: Value) -> Value:
    """x (1 + a) + b, with a and b linear in the time's embedding [b, c_r]: the shape of x."""
    width = x.size(layout.channels)
    halves = split(linear(time, weights["mapper"], 2 * width), 2, axis=1)
    scale, shift = (reshape(half, (-1, *layout.view(width)[1:])) for half in halves)
    return x * (1 + scale) + shift


def attention_block(x: Value, weights: Weights, layout: Layout, head_count: int, keys: Value, values: Value) -> Value:
    """Each position attends to all others and to the text's ``keys`` and ``values`` [b, n, c]."""
    width, weights = x.size(layout.channels), weights["attention"]
    rows = reshape(x, (0, -1, width)) if layout == LAST else transpose(reshape(x, (0, 0, -1)), (0, 2, 1))
    rows = normalise(rows, -1, NORM_EPS)
    queries = linear(rows, weights["to_q"], width)
    keys = concat([linear(rows, weights["to_k"], width), keys], axis=1)
    values = concat([linear(rows, weights["to_v"], width), values], axis=1)
    found = merge_heads(
        attention(split_heads(queries, head_count), split_heads(keys, head_count), split_heads(values, head_count))
    )
    change = linear(found, weights["to_out"][0], width)
    return x + reshape_like(change if layout == LAST else transpose(change, (0, 2, 1)), x)


def text_keys_values(condition: Value, blocks: Iterable[tuple[Weights, int]]) -> Iterator[tuple[Value, Value]]:
    """Keys and values [b, n, c] of the text for ``blocks``, each given by its weights and width c.

    ``condition`` [b, n, c_cond] is common to them. A block's ``kv_mapper`` comes before its
    ``to_k`` and ``to_v``.
    """
    active = silu(condition)
    for weights, width in blocks:
        mapper, attending = weights["kv_mapper"][1], weights["attention"]
        if width <= FOLDED_WIDTH:
            keys, values = (_mapped(active, attending[name], mapper, width) for name in ("to_k", "to_v"))
        else:
            mapped = linear(active, mapper, width)
            keys, values = (linear(mapped, attending[name], width) for name in ("to_k", "to_v"))
        yield keys, values


def timestep_embedding(r: Value, width: int) -> Value:
    """Sines, then cosines, of r [b], a time from 0 to 1, in full precision: [b, width]."""
    positions = r * _MAX_POSITIONS
    mark_precise(positions.node)
    return sinusoidal_embedding(positions, width, cosines_first=False, at=_frequencies(width // 2))


def channel_norm(x: Value, layout: Layout = FIRST) -> Value:
    """Normalise each position's channels to mean 0 and deviation 1.

    OpenVINO has an operation for the last dimension. With channels first, stage A takes 1.3 to 1.4
    times as long, and stage B 1.1 times, if their maps are transposed for it.
    """
    if layout == LAST:
        return normalise(x, 3, NORM_EPS)
    centred = x - _mean(x, layout.channels)
    return centred * (constant(1.0) / _sqrt(_mean(centred * centred, layout.channels) + NORM_EPS))


def norm_2d(x: Value) -> Value:
    """Apply :func:`channel_norm` to x [b, c, h, w], in the layout of the blocks before."""
    layout = _layout_of(x.size(1))
    return _channels_first(channel_norm(_in_layout(x, layout), layout), layout)


def pointwise(x: Value, weights: Weights, width: int, layout: Layout) -> Value:
    """A linear layer [width, c] of each position's channels."""
    shape = (width, x.size(layout.channels))
    product = _product(x, weights.matrix("weight", shape, _view(shape, layout)), layout).named(weights.scope)
    return product + weights.vector("bias", (width,), layout.view(width))


def _expand(x: Value, weights: Weights, width: int, layout: Layout, mapper: Mapper | None) -> Value:
    """A linear layer. With ``mapper``, the last channels of x are an unmapped image embedding."""
    if mapper is None:
        return pointwise(x, weights, width, layout)
    direct = x.size(layout.channels) - mapper.channels
    shape = (width, direct + mapper.width)
    mapper.check()
    weights.mark_used("weight", shape)
    weights.mark_used("bias", (width,))

    @cache
    def mapped() -> NDArray[np.float32]:
        """What multiplies the embedding's channels, and in the last column what is added."""
        rows = (block[:, direct:] for block in weights.rows("weight", shape))
        return _multiplied(rows, np.column_stack([mapper.matrix(), mapper.bias()]))

    def matrix() -> NDArray[np.float32]:
        joined, row = np.empty((width, direct + mapper.channels), np.float32), 0
        for block in weights.rows("weight", shape):
            joined[row : row + len(block), :direct] = block[:, :direct]
            row += len(block)
        joined[:, direct:] = mapped()[:, :-1]
        return joined

    def bias() -> NDArray[np.float32]:
        return weights.values("bias", (width,)) + mapped()[:, -1]

    layer = weights.computed("weight", _view((width, direct + mapper.channels), layout), matrix, like="weight")
    product = _product(x, layer, layout).named(weights.scope)
    return product + weights.computed_vector("bias", layout.view(width), bias)


def _response(x: Value, weights: Weights, layout: Layout) -> Value:
    """Global response norm's factors: 1 + γ · a channel's energy over the channels' mean."""
    width = x.size(layout.channels)
    axes = opset.constant(list(layout.space), np.int64)
    energy = Value(opset.reduce_l2(x.output, axes, keep_dims=True))
    share = energy / (_mean(energy, layout.channels) + NORM_EPS)
    return 1 + weights.vector("gamma", (1, 1, 1, width), layout.view(width)) * share


def _contract(x: Value, weights: Weights, width: int, layout: Layout, shift: Weights) -> Value:
    """A linear layer of x + β, β being global response norm's ``shift``."""
    shape = (width, x.size(layout.channels))
    shift.mark_used("beta", (1, 1, 1, shape[1]))
    weights.mark_used("bias", (width,))

    def bias() -> NDArray[np.float32]:
        beta = shift.values("beta", (1, 1, 1, shape[1])).reshape(-1)
        return weights.values("bias", (width,)) + _multiplied(weights.rows("weight", shape), beta)

    product = _product(x, weights.matrix("weight", shape, _view(shape, layout)), layout).named(weights.scope)
    return product + weights.computed_vector("bias", layout.view(width), bias)


def _mapped(x: Value, weights: Weights, mapper: Weights, width: int) -> Value:
    """Apply two linear layers as one to x [b, n, c_cond]: ``mapper``, then ``weights``."""
    square, wide = (width, width), (width, x.size(-1))
    for scope, shape in ((weights, square), (mapper, wide)):
        scope.mark_used("weight", shape)
        scope.mark_used("bias", (width,))

    def matrix() -> NDArray[np.float32]:
        return _multiplied(weights.rows("weight", square), mapper.values("weight", wide))

    def bias() -> NDArray[np.float32]:
        mapped = _multiplied(weights.rows("weight", square), mapper.values("bias", (width,)))
        return weights.values("bias", (width,)) + mapped

    layer = weights.computed("weight", wide, matrix, like="weight")
    product = Value(opset.matmul(x.output, layer.output, False, True)).named(weights.scope)
    return product + weights.computed_vector("bias", (1, 1, width), bias)


def _multiplied(rows: Iterable[NDArray[np.float32]], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply a matrix, given in blocks of rows, by a matrix or a vector, in f64.

    In f64, since the number of threads decides the order of the sums: in f32 it would show, and a
    model that is opened would differ in some last bits from the bundle that another process made of
    it.
    """
    columns, products, exact = np.ascontiguousarray(other.T, np.float64), [], np.empty((0, 0))
    for block in rows:
        if len(exact) < len(block):
            exact = np.empty(block.shape)  # once, since new memory takes longer than the product
        np.copyto(exact[: len(block)], block)
        products.append(np.einsum("ij,...j->i...", exact[: len(block)], columns))
    return np.concatenate(products).astype(np.float32)


def _view(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Shape of a matrix as :func:`_product` takes it."""
    return shape if layout == LAST else (*shape, 1, 1)


def _product(x: Value, matrix: Value, layout: Layout) -> Value:
    """Each position's channels times a matrix: a product with channels last, else a convolution."""
    if layout == LAST:
        return Value(opset.matmul(x.output, matrix.output, False, True))
    return Value(opset.convolution(x.output, matrix.output, [1, 1], [0, 0], [0, 0], [1, 1]))


def _depthwise(x: Value, weights: Weights, layout: Layout, kernel: int) -> Value:
    x = _channels_first(x, layout)
    x = conv2d(x, weights, x.size(1), kernel, padding=kernel // 2, depthwise=True)
    return _in_layout(x, layout)


def _layout_of(width: int) -> Layout:
    return LAST if width >= CHANNELS_LAST_WIDTH else FIRST


def _in_layout(x: Value, layout: Layout) -> Value:
    return transpose(x, (0, 2, 3, 1)) if layout == LAST else x


def _channels_first(x: Value, layout: Layout) -> Value:
    return transpose(x, (0, 3, 1, 2)) if layout == LAST else x


def _mean(x: Value, axis: int) -> Value:
    return Value(opset.reduce_mean(x.output, opset.constant([axis], np.int64), keep_dims=True))


def _sqrt(x: Value) -> Value:
    return Value(opset.sqrt(x.output))


def _frequencies(count: int) -> NDArray[np.float32]:
    """Frequencies from 1 to 1/10000, rounded as in torch: large angles show the last bit."""
    decay = np.float32(-math.log(_MAX_POSITIONS) / (count - 1))
    exponents = np.arange(count, dtype=np.float32) * decay
    return np.exp(exponents.astype(np.float64)).astype(np.float32)
