"""The residual blocks of SDXL's UNet and of the KL autoencoder.

With a ``scale``, a block's x and its result are ``scale`` times as large as the checkpoint's
weights would make them. Whatever the block adds to x is scaled too, and its norms divide the scale
out, so nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from vinograph.networks.graph import Weights
from vinograph.networks.layers import conv2d, group_norm, linear, reshape, silu, upsample, upsample_like
from vinograph.networks.values import Value


@dataclass(frozen=True)
class GroupNorm:
    """A block's group norms: the number of groups, and what is added to the variance."""

    groups: int
    eps: float


def residual_block(
    x: Value, weights: Weights, channels: int, norm: GroupNorm, time: Value | None = None, *, scale: float = 1
) -> Value:
    """x + conv(silu(norm(conv(silu(norm(x))) + time))): [b, c, h, w] -> [b, channels, h, w].

    ``time`` [b, t] is the timestep embedding after its SiLU. Where the number of channels changes,
    a 1x1 convolution of x is added in place of x. Diffusers' ResnetBlock2D.
    """
    eps = norm.eps * scale**2
    hidden = silu(group_norm(x, weights["norm1"], norm.groups, eps))
    hidden = conv2d(hidden, into_stream(weights["conv1"], scale), channels, 3, padding=1)
    if time is not None:
        time = linear(time, into_stream(weights["time_emb_proj"], scale), channels)
        hidden = hidden + reshape(time, (0, 0, 1, 1))
    hidden = silu(group_norm(hidden, weights["norm2"], norm.groups, eps))
    hidden = conv2d(hidden, into_stream(weights["conv2"], scale), channels, 3, padding=1)
    if x.size(1) != channels:
        x = conv2d(x, _within_stream(weights["conv_shortcut"], scale), channels, 1)
    return hidden + x


def downsample(x: Value, weights: Weights, *, padding: int | tuple[int, int] = 1, scale: float = 1) -> Value:
    """A convolution of stride 2: [b, c, h, w] -> [b, c, h/2, w/2], rounded up."""
    return conv2d(x, _within_stream(weights["conv"], scale), x.size(1), 3, stride=2, padding=padding)


def upsample_block(x: Value, weights: Weights, like: Value | None = None, *, scale: float = 1) -> Value:
    """Nearest upsampling to twice the size, or to that of ``like``, then a convolution."""
    larger = upsample(x) if like is None else upsample_like(x, like)
    return conv2d(larger, _within_stream(weights["conv"], scale), x.size(1), 3, padding=1)


def into_stream(weights: Weights, scale: float) -> Weights:
    """The weights of a layer that takes unscaled values and gives scaled ones."""
    return weights.scaled(matrices=scale, vectors=scale)


def _within_stream(weights: Weights, scale: float) -> Weights:
    """The weights of a layer that takes scaled values and gives scaled ones."""
    return weights.scaled(vectors=scale)
