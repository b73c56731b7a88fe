"""The tiny autoencoder: latents of another autoencoder, made and read by a thirtieth of its parameters.

Ollin Boer Bohan, https://github.com/madebyollin/taesd. Weights have the names of diffusers' AutoencoderTiny, in which
all layers of a half are numbered in order of execution, those without weights too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from openvino import opset13 as opset

from vinograph.networks.graph import Network, Port, Value, Weights, build
from vinograph.networks.layers import conv2d, gelu, relu, silu, tanh, upsample

if TYPE_CHECKING:
    from vinograph.convert.tiny_autoencoder import TinyAutoencoderConfig

PICTURE = Port(("b", 3, "height", "width"))

_SOFT_LIMIT = 3.0
DECODER_IGNORED, ENCODER_IGNORED = r"(encoder)\..*", r"(decoder)\..*"
"""The tensors of the other half, where one half alone is built."""


def tiny_vae_decoder(config: TinyAutoencoderConfig, weights: Weights) -> Network:
    """The graph from latents to pictures of about [-1, 1]. Latents are limited to ±3, softly.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """
    latents = Port(("b", config.latent_channels, "h", "w"))

    def decode(latent_sample: Value) -> Value:
        limited = tanh(latent_sample / _SOFT_LIMIT) * _SOFT_LIMIT
        return _decode(limited, weights["decoder"]["layers"], config) * 2 - 1

    return build(weights, {"latent_sample": latents}, {"sample": PICTURE}, decode)


def tiny_vae_encoder(config: TinyAutoencoderConfig, weights: Weights) -> Network:
    """The graph from pictures in [-1, 1] to latents.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """
    latents = Port(("b", config.latent_channels, "h", "w"))

    def encode(sample: Value) -> Value:
        return _encode((sample + 1) / 2, weights["encoder"]["layers"], config)

    return build(weights, {"sample": PICTURE}, {"latents": latents}, encode)


def _encode(x: Value, weights: Weights, config: TinyAutoencoderConfig) -> Value:
    """Stages of blocks, each of half the height and width of the one before: [b, 3, …] -> [b, c, …]."""
    width, layer = config.encoder_block_out_channels[0], 0
    for stage, count in enumerate(config.num_encoder_blocks):
        if stage == 0:
            x = conv2d(x, weights[layer], width, 3, padding=1)
        else:
            x = conv2d(x, weights[layer], width, 3, padding=1, stride=2, bias=False)
        x = _blocks(x, weights, layer + 1, count, config.act_fn)
        layer += 1 + count
    return conv2d(x, weights[layer], config.latent_channels, 3, padding=1)


def _decode(x: Value, weights: Weights, config: TinyAutoencoderConfig) -> Value:
    """Stages of blocks, each of a larger height and width than the one before: [b, c, …] -> [b, 3, …]."""
    width, stages = config.decoder_block_out_channels[0], len(config.num_decoder_blocks)
    x = _ACTIVATIONS[config.act_fn](conv2d(x, weights[0], width, 3, padding=1))
    layer = 2
    for stage, count in enumerate(config.num_decoder_blocks):
        x = _blocks(x, weights, layer, count, config.act_fn)
        layer += count
        if stage < stages - 1:
            larger = upsample(x, config.upsampling_scaling_factor)
            x = conv2d(larger, weights[layer + 1], width, 3, padding=1, bias=False)
            layer += 2
    return conv2d(x, weights[layer], 3, 3, padding=1)


def _blocks(x: Value, weights: Weights, first: int, count: int, activation: str) -> Value:
    for layer in range(first, first + count):
        x = _block(x, weights[layer]["conv"], _ACTIVATIONS[activation])
    return x


def _block(x: Value, weights: Weights, activation: Callable[[Value], Value]) -> Value:
    """Three convolutions around which x [b, c, h, w] is added, then a ReLU whatever the activation is."""
    width = x.size(1)
    hidden = activation(conv2d(x, weights[0], width, 3, padding=1))
    hidden = activation(conv2d(hidden, weights[2], width, 3, padding=1))
    return relu(conv2d(hidden, weights[4], width, 3, padding=1) + x)


def _mish(x: Value) -> Value:
    """x times the hyperbolic tangent of its softplus (arXiv 1908.08681)."""
    return Value(opset.mish(x.output))


_ACTIVATIONS: Mapping[str, Callable[[Value], Value]] = MappingProxyType(
    {"relu": relu, "silu": silu, "swish": silu, "gelu": gelu, "mish": _mish}
)
