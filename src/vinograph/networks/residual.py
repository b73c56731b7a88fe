"""The convolutional blocks that SDXL's UNet and the KL autoencoder are made of."""

from __future__ import annotations

from dataclasses import dataclass

from vinograph.networks.graph import Value, Weights
from vinograph.networks.layers import conv2d, group_norm, linear, reshape, silu, upsample, upsample_like


@dataclass(frozen=True)
class Norm:
    """The number of groups of a block's group norms, and what is added to their variance."""

    groups: int
    eps: float


def residual_block(x: Value, weights: Weights, channels: int, norm: Norm, time: Value | None = None) -> Value:
    """x + conv(silu(norm(conv(silu(norm(x))) + time))): [b, c, h, w] -> [b, channels, h, w].

    ``time`` [b, t] has been through its SiLU. Where the number of channels changes, a 1x1 convolution of x is added
    in its place. Diffusers' ResnetBlock2D.
    """
    hidden = silu(group_norm(x, weights["norm1"], norm.groups, norm.eps))
    hidden = conv2d(hidden, weights["conv1"], channels, 3, padding=1)
    if time is not None:
        hidden = hidden + reshape(linear(time, weights["time_emb_proj"], channels), (0, 0, 1, 1))
    hidden = silu(group_norm(hidden, weights["norm2"], norm.groups, norm.eps))
    hidden = conv2d(hidden, weights["conv2"], channels, 3, padding=1)
    if x.size(1) != channels:
        x = conv2d(x, weights["conv_shortcut"], channels, 1)
    return hidden + x


def downsample(x: Value, weights: Weights, *, padding: int | tuple[int, int] = 1) -> Value:
    """A convolution of half the height and width, rounded up: [b, c, h, w] -> [b, c, h/2, w/2]."""
    return conv2d(x, weights["conv"], x.size(1), 3, stride=2, padding=padding)


def upsample_block(x: Value, weights: Weights, like: Value | None = None) -> Value:
    """Nearest values to the height and width of ``like``, or to twice those of x, then a convolution."""
    larger = upsample(x) if like is None else upsample_like(x, like)
    return conv2d(larger, weights["conv"], x.size(1), 3, padding=1)
