"""The tiny autoencoder: the latents of a KL autoencoder with a thirtieth of its parameters.

Ollin Boer Bohan, https://github.com/madebyollin/taesd. Weights have the names of diffusers'
AutoencoderTiny, which numbers all layers of a half in order of execution, also those without
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from openvino import opset13 as opset

from vinograph.networks.config import check_divisors, check_unshifted, read_config
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import conv2d, gelu, relu, silu, tanh, upsample
from vinograph.networks.values import Value

PICTURE = Port(("b", 3, "height", "width"))

_SOFT_LIMIT = 3.0
DECODER_IGNORED, ENCODER_IGNORED = r"(encoder)\..*", r"(decoder)\..*"
"""The tensors of the other half, when one half alone is built."""


_FIXED: Mapping[str, Any] = MappingProxyType({"in_channels": 3, "out_channels": 3, "upsample_fn": "nearest"})
# block_out_channels repeats decoder_block_out_channels; latent_magnitude is for storing latents in
# bytes.
_WITHOUT_EFFECT = ("block_out_channels", "latent_magnitude", "latent_shift", "force_upcast")


@dataclass(frozen=True)
class TinyAutoencoderConfig:
    """The keys of the tiny autoencoder's config.json that matter, with diffusers' defaults.

    Attributes:
        encoder_block_out_channels, decoder_block_out_channels: channels of each stage, in order of
            execution.
        num_encoder_blocks, num_decoder_blocks: residual blocks of each stage.
        upsampling_scaling_factor: by how much the decoder upsamples between stages.
        scaling_factor: what the denoiser's latents are divided by before they are decoded.
        shift_factor: must be 0 or None; other families have one.
    """

    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    act_fn: str = "relu"
    latent_channels: int = 4
    upsampling_scaling_factor: int = 2
    scaling_factor: float = 1.0
    shift_factor: float | None = None

    def __post_init__(self) -> None:
        if self.act_fn not in _ACTIVATIONS:
            raise ValueError(f"act_fn is {self.act_fn!r}; known are {', '.join(_ACTIVATIONS)}")
        check_unshifted(self.shift_factor)
        check_divisors(scaling_factor=self.scaling_factor)
        for half in ("encoder", "decoder"):
            widths, blocks = getattr(self, f"{half}_block_out_channels"), getattr(self, f"num_{half}_blocks")
            if len(widths) != len(blocks):
                raise ValueError(
                    f"{half}_block_out_channels has {len(widths)} entries, num_{half}_blocks {len(blocks)}"
                )
            if len(set(widths)) > 1:
                raise ValueError(f"{half}_block_out_channels is {list(widths)}; its stages must be equally wide")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TinyAutoencoderConfig:
        """From a config.json.

        Raises:
            ValueError: naming a key that is unknown, or a value that isn't computed here.
        """
        return read_config(cls, mapping, fixed=_FIXED, without_effect=_WITHOUT_EFFECT)

    @property
    def encoder_scale_factor(self) -> int:
        """How many times smaller than the picture the encoder's latents are, in each direction."""
        return int(2 ** (len(self.num_encoder_blocks) - 1))

    @property
    def decoder_scale_factor(self) -> int:
        """How many times larger than its latents the decoder's picture is, in each direction."""
        return int(self.upsampling_scaling_factor ** (len(self.num_decoder_blocks) - 1))


def tiny_vae_decoder(config: TinyAutoencoderConfig, weights: Weights) -> Network:
    """The decoder: latents [b, c, h, w] to pictures [b, 3, height, width] of about [-1, 1].

    Latents are softly limited to ±3.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def decode(latent_sample: Value) -> Value:
        limited = tanh(latent_sample / _SOFT_LIMIT) * _SOFT_LIMIT
        return _decode(limited, weights["decoder"]["layers"], config) * 2 - 1

    return build(weights, decoder_ports(config), decode)


def tiny_vae_encoder(config: TinyAutoencoderConfig, weights: Weights) -> Network:
    """The encoder: pictures [b, 3, height, width] in [-1, 1] to latents [b, c, h, w].

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def encode(sample: Value) -> Value:
        return _encode((sample + 1) / 2, weights["encoder"]["layers"], config)

    return build(weights, encoder_ports(config), encode)


def decoder_ports(config: TinyAutoencoderConfig) -> Ports:
    """The ports of :func:`tiny_vae_decoder`."""
    latents = Port(("b", config.latent_channels, "h", "w"))
    return Ports({"latent_sample": latents}, {"sample": PICTURE})


def encoder_ports(config: TinyAutoencoderConfig) -> Ports:
    """The ports of :func:`tiny_vae_encoder`."""
    return Ports({"sample": PICTURE}, {"latents": Port(("b", config.latent_channels, "h", "w"))})


def _encode(x: Value, weights: Weights, config: TinyAutoencoderConfig) -> Value:
    """Stages of blocks, each with half the height and width of the one before."""
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
    """Stages of blocks, each with a larger height and width than the one before."""
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
    """x plus three convolutions of it, then a ReLU whatever the activation is."""
    width = x.size(1)
    hidden = activation(conv2d(x, weights[0], width, 3, padding=1))
    hidden = activation(conv2d(hidden, weights[2], width, 3, padding=1))
    return relu(conv2d(hidden, weights[4], width, 3, padding=1) + x)


def _mish(x: Value) -> Value:
    """Mish: x times the hyperbolic tangent of its softplus (arXiv 1908.08681)."""
    return Value(opset.mish(x.output))


_ACTIVATIONS: Mapping[str, Callable[[Value], Value]] = MappingProxyType(
    {"relu": relu, "silu": silu, "swish": silu, "gelu": gelu, "mish": _mish}
)
