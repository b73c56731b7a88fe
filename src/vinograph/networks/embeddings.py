"""Times and sizes as vectors: sines and cosines of them, then two linear layers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.networks.graph import Value, Weights, constant
from vinograph.networks.layers import concat, linear, reshape, silu
from vinograph.runtime.precise import mark_precise

_MAX_PERIOD = 10_000


def frequencies(width: int, shift: float = 0) -> NDArray[np.float32]:
    """The width // 2 frequencies of sinusoids (arXiv 1706.03762, section 3.5), falling from 1.

    Exponentials are rounded to f32 once. NumPy's own in f32 are off in the last bit at places that depend on the
    machine, which a time of 999 makes 0.00006 radians.
    """
    half = width // 2
    decay = np.float32(-math.log(_MAX_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half - shift)
    waves: NDArray[np.float32] = np.exp(decay.astype(np.float64)).astype(np.float32)
    return waves


def sinusoidal_embedding(
    values: Value,
    width: int,
    shift: float = 0,
    *,
    cosines_first: bool = True,
    at: NDArray[np.float32] | None = None,
) -> Value:
    """Sines and cosines of ``values``, n in any shape, at width // 2 frequencies, in full precision: [n, width].

    A time of 999 is 1000 in bf16, and its products with frequencies would be off by radians. So these nodes are
    computed in f32 whatever the rest of the network runs in. ``at`` are other frequencies than :func:`frequencies`.
    """
    column = reshape(values, (-1, 1))
    angles = column * constant((frequencies(width, shift) if at is None else at)[None])
    cosines, sines = Value(opset.cos(angles.output)), Value(opset.sin(angles.output))
    for value in (column, angles, cosines, sines):
        mark_precise(value.node)
    waves = concat([cosines, sines] if cosines_first else [sines, cosines], axis=1)
    if width % 2:
        end = opset.constant([0, 1])
        waves = Value(opset.pad(waves.output, opset.constant([0, 0]), end, "constant", opset.constant(np.float32(0))))
    return waves


def timestep_embedding(x: Value, weights: Weights, width: int, condition: Value | None = None) -> Value:
    """Two linear layers with SiLU between: x [b, n] -> [b, width]. ``condition`` is projected and added to x."""
    if condition is not None:
        x = x + linear(condition, weights["cond_proj"], x.size(-1), bias=False)
    return linear(silu(linear(x, weights["linear_1"], width)), weights["linear_2"], width)
