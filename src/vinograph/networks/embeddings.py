"""Embeddings of timesteps and sizes: sines and cosines, then two linear layers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.networks.graph import Weights
from vinograph.networks.layers import concat, linear, reshape, silu
from vinograph.networks.values import Value, constant
from vinograph.runtime.precise import mark_precise

_MAX_PERIOD = 10_000


def frequencies(width: int, shift: float = 0) -> NDArray[np.float32]:
    """The ``width // 2`` frequencies of a sinusoidal embedding, falling from 1.

    Vaswani et al. (arXiv 1706.03762), section 3.5. Exponentials are computed in f64 and rounded
    once. NumPy's in f32 differ in the last bit from machine to machine, which is 0.00006 radians at
    timestep 999.
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
    """Sines and cosines of n ``values``, of any shape, at ``width // 2`` frequencies: [n, width].

    They are computed in f32 in every precision. In bf16 a timestep of 999 is 1000, and its products
    with frequencies are off by radians. ``at`` replaces :func:`frequencies`.
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
    """Two linear layers with SiLU between them: x [b, n] -> [b, width].

    ``condition`` is projected and added to x. Diffusers' TimestepEmbedding.
    """
    if condition is not None:
        x = x + linear(condition, weights["cond_proj"], x.size(-1), bias=False)
    return linear(silu(linear(x, weights["linear_1"], width)), weights["linear_2"], width)
