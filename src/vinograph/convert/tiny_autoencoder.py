"""The tiny autoencoder: latents of another autoencoder, made and read by a thirtieth of its parameters.

Ollin Boer Bohan, https://github.com/madebyollin/taesd. Parameters have the names of diffusers' `AutoencoderTiny`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.layers import Conv2d
from vinograph.convert.network_config import check_divisors, check_unshifted, read_config

_SOFT_LIMIT = 3.0
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"relu": nn.ReLU, "silu": nn.SiLU, "swish": nn.SiLU, "gelu": nn.GELU, "mish": nn.Mish}
)
_FIXED: Mapping[str, Any] = MappingProxyType({"in_channels": 3, "out_channels": 3, "upsample_fn": "nearest"})
# block_out_channels repeats decoder_block_out_channels; the latents' magnitude is for storing them in bytes.
_WITHOUT_EFFECT = ("block_out_channels", "latent_magnitude", "latent_shift", "force_upcast")


@dataclass(frozen=True)
class TinyAutoencoderConfig:
    """The keys of the tiny autoencoder's config.json that matter, with diffusers' defaults.

    Attributes:
        encoder_block_out_channels, decoder_block_out_channels: channels of each stage, in order of execution.
        num_encoder_blocks, num_decoder_blocks: residual blocks of each stage.
        upsampling_scaling_factor: the decoder's, between stages.
        scaling_factor: latents are what is drawn, divided by it.
        shift_factor: nothing; other families have one, which is refused here.
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
        """Of a config.json.

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


class TinyAutoencoder(nn.Module):
    """Both halves, each of which is a component."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = TinyEncoder(config), TinyDecoder(config)

    @classmethod
    def from_config(cls, mapping: Mapping[str, Any]) -> TinyAutoencoder:
        """The model that a config.json describes. Raises what :meth:`TinyAutoencoderConfig.from_mapping` does."""
        return cls(TinyAutoencoderConfig.from_mapping(mapping))


class TinyEncoder(nn.Module):
    """Pictures [b, 3, height, width] in [-1, 1] -> latents [b, c, h, w]."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        width = config.encoder_block_out_channels[0]
        layers: list[nn.Module] = []
        for stage, count in enumerate(config.num_encoder_blocks):
            first = Conv2d(3, width, 3, padding=1)
            layers.append(first if stage == 0 else Conv2d(width, width, 3, padding=1, stride=2, bias=False))
            layers += [_Block(width, config.act_fn) for _ in range(count)]
        layers.append(Conv2d(width, config.latent_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, sample: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.layers((sample + 1) / 2)
        return out


class TinyDecoder(nn.Module):
    """Latents [b, c, h, w] -> pictures [b, 3, height, width], about [-1, 1]. Latents are limited to ±3, softly."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        width, stages = config.decoder_block_out_channels[0], len(config.num_decoder_blocks)
        layers: list[nn.Module] = [Conv2d(config.latent_channels, width, 3, padding=1), _ACTIVATIONS[config.act_fn]()]
        for stage, count in enumerate(config.num_decoder_blocks):
            layers += [_Block(width, config.act_fn) for _ in range(count)]
            if stage < stages - 1:
                layers.append(nn.Upsample(scale_factor=config.upsampling_scaling_factor, mode="nearest"))
                layers.append(Conv2d(width, width, 3, padding=1, bias=False))
            else:
                layers.append(Conv2d(width, 3, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, latent_sample: Tensor) -> Tensor:
        """See the class."""
        limited = torch.tanh(latent_sample / _SOFT_LIMIT) * _SOFT_LIMIT
        out: Tensor = self.layers(limited) * 2 - 1
        return out


class _Block(nn.Module):
    """Three convolutions around which x is added."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        between = _ACTIVATIONS[activation]
        self.conv = nn.Sequential(
            Conv2d(width, width, 3, padding=1),
            between(),
            Conv2d(width, width, 3, padding=1),
            between(),
            Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)
