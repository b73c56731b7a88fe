"""The autoencoder of latent diffusion: pictures to latents and back, eight times smaller in each direction.

Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models (arXiv 2112.10752), appendix G.1.
Parameters have the names of diffusers' `AutoencoderKL`.

Half precision: the feature maps that SDXL's own weights make pass 65504. They are a sum, the residual stream, to which
every block adds and which every block takes through a group norm, so its scale can be chosen: :func:`scale_stream`
multiplies all that is added to it by a power of two, which is exact, and the norms undo that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.layers import Conv2d, GroupNorm, Linear
from vinograph.convert.network_config import check_divisors, check_unshifted, read_config
from vinograph.convert.residual import Downsample, ResidualBlock, Upsample

STREAM_SCALE = 2.0**-6
"""Values of four million still fit in half precision; weights keep their eleven bits down to 0.004."""

_NORM_EPS = 1e-6
_FIXED: Mapping[str, Any] = MappingProxyType({"in_channels": 3, "out_channels": 3, "act_fn": "silu"})
_WITHOUT_EFFECT = ("sample_size", "force_upcast")


@dataclass(frozen=True)
class AutoencoderConfig:
    """The keys of the autoencoder's config.json that matter, with diffusers' defaults.

    Attributes:
        block_out_channels: channels of each level, the finest first.
        layers_per_block: residual blocks of each level of the encoder; the decoder has one more.
        latent_channels: channels of the latents.
        use_quant_conv, use_post_quant_conv: whether a 1×1 convolution ends the encoder and starts the decoder.
        mid_block_add_attention: whether the coarsest level has attention.
        scaling_factor: latents are what is drawn, divided by it.
        shift_factor: nothing; other families have one, which is refused here.
        latents_mean, latents_std: of each channel of the latents, where the model has them.
    """

    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        if not self.block_out_channels:
            raise ValueError("block_out_channels is empty")
        for name, types, known in (
            ("down_block_types", self.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", self.up_block_types, "UpDecoderBlock2D"),
        ):
            if len(types) != len(self.block_out_channels):
                raise ValueError(f"{name} has {len(types)} entries for {len(self.block_out_channels)} levels")
            for kind in types:
                if kind != known:
                    raise ValueError(f"{name} has {kind!r}; known is {known}")
        check_unshifted(self.shift_factor)
        check_divisors(scaling_factor=self.scaling_factor)
        for name, values in (("latents_mean", self.latents_mean), ("latents_std", self.latents_std)):
            if values is not None and len(values) != self.latent_channels:
                raise ValueError(f"{name} has {len(values)} numbers for {self.latent_channels} channels")
        if (self.latents_mean is None) != (self.latents_std is None):
            raise ValueError("of latents_mean and latents_std one is missing")
        check_divisors(**{f"latents_std[{index}]": value for index, value in enumerate(self.latents_std or ())})

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> AutoencoderConfig:
        """Of a config.json.

        Raises:
            ValueError: naming a key that is missing or unknown, or a value that isn't computed here.
        """
        return read_config(cls, mapping, fixed=_FIXED, without_effect=_WITHOUT_EFFECT)

    @property
    def scale_factor(self) -> int:
        """How many times smaller than the picture its latents are, in each direction."""
        return int(2 ** (len(self.block_out_channels) - 1))


class Autoencoder(nn.Module):
    """Both halves. Conversion makes two components of them, :class:`AutoencoderEncoder` and its counterpart."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder, self.decoder = _Encoder(config), _Decoder(config)
        self.quant_conv = Conv2d(2 * channels, 2 * channels, 1) if config.use_quant_conv else None
        self.post_quant_conv = Conv2d(channels, channels, 1) if config.use_post_quant_conv else None

    @classmethod
    def from_config(cls, mapping: Mapping[str, Any]) -> Autoencoder:
        """The model that a config.json describes. Raises what :meth:`AutoencoderConfig.from_mapping` does."""
        return cls(AutoencoderConfig.from_mapping(mapping))


class AutoencoderEncoder(nn.Module):
    """The encoder of ``autoencoder``, whose weights it takes over, with its stream scaled."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.encoder, self.quant_conv = autoencoder.encoder, autoencoder.quant_conv
        scale_stream(self.encoder)

    def forward(self, sample: Tensor) -> Tensor:
        """Pictures [b, 3, height, width] in [-1, 1] -> mean and log variance [b, 2c, h, w] of their latents."""
        out: Tensor = self.encoder(sample)
        return out if self.quant_conv is None else self.quant_conv(out)


class AutoencoderDecoder(nn.Module):
    """The decoder of ``autoencoder``, whose weights it takes over, with its stream scaled."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv = autoencoder.decoder, autoencoder.post_quant_conv
        scale_stream(self.decoder)

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Latents [b, c, h, w] -> pictures [b, 3, height, width], about [-1, 1]."""
        hidden = latent_sample if self.post_quant_conv is None else self.post_quant_conv(latent_sample)
        out: Tensor = self.decoder(hidden)
        return out


class _Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = Conv2d(3, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _DownBlock(config, widths[max(level - 1, 0)], width, halve=level < len(widths) - 1)
            for level, width in enumerate(widths)
        )
        self.mid_block = _MiddleBlock(config)
        self.conv_norm_out = GroupNorm(config.norm_num_groups, widths[-1], _NORM_EPS)
        self.conv_out = Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))
        return out


class _Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _MiddleBlock(config)
        self.up_blocks = nn.ModuleList(
            _UpBlock(config, widths[max(turn - 1, 0)], width, double=turn < len(widths) - 1)
            for turn, width in enumerate(widths)
        )
        self.conv_norm_out = GroupNorm(config.norm_num_groups, widths[-1], _NORM_EPS)
        self.conv_out = Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


def _residuals(config: AutoencoderConfig, c_in: int, c_out: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        ResidualBlock(c_in if index == 0 else c_out, c_out, config.norm_num_groups, _NORM_EPS) for index in range(count)
    )


class _DownBlock(nn.Module):
    def __init__(self, config: AutoencoderConfig, c_in: int, c_out: int, halve: bool) -> None:
        super().__init__()
        self.resnets = _residuals(config, c_in, c_out, config.layers_per_block)
        self.downsamplers = nn.ModuleList([Downsample(c_out, padding=0)] if halve else [])

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.resnets, *self.downsamplers):
            x = block(x)
        return x


class _UpBlock(nn.Module):
    def __init__(self, config: AutoencoderConfig, c_in: int, c_out: int, double: bool) -> None:
        super().__init__()
        self.resnets = _residuals(config, c_in, c_out, config.layers_per_block + 1)
        self.upsamplers = nn.ModuleList([Upsample(c_out)] if double else [])

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.resnets, *self.upsamplers):
            x = block(x)
        return x


class _MiddleBlock(nn.Module):
    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width = config.block_out_channels[-1]
        self.resnets = _residuals(config, width, width, 2)
        self.attentions = nn.ModuleList(
            [SpatialAttention(width, config.norm_num_groups)] if config.mid_block_add_attention else []
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        out: Tensor = self.resnets[1](x)
        return out


class SpatialAttention(nn.Module):
    """Attention among the positions of a feature map [b, c, h, w], with one head, added to it."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = GroupNorm(groups, width, _NORM_EPS)
        self.to_q, self.to_k, self.to_v = (Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, channels, height, width = x.shape
        hidden = self.group_norm(x).reshape(batch, channels, height * width).transpose(1, 2)[:, None]
        attended = F.scaled_dot_product_attention(self.to_q(hidden), self.to_k(hidden), self.to_v(hidden))
        out: Tensor = self.to_out[0](attended[:, 0])
        return x + out.transpose(1, 2).reshape(batch, channels, height, width)


def scale_stream(half: nn.Module, scale: float = STREAM_SCALE) -> None:
    """Make the residual stream of an encoder or a decoder ``scale`` times as large, a power of two; its result stays.

    What adds to the stream is multiplied: the weights and biases of the first convolution, of each residual block's
    second one and of attention's last layer. So are the first convolution of each residual block, whose result may be
    as large, and the biases of layers that take the stream as it is. All norms see values ``scale`` times as large,
    and get an epsilon ``scale²`` times as large.
    """
    with torch.no_grad():
        for layer, takes_stream in _stream_layers(half):
            if not takes_stream:
                _multiply(layer, "weight", scale)
            _multiply(layer, "bias", scale)
    for norm in half.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.eps *= scale**2


def _stream_layers(half: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """The layers that give values of the stream's size, and whether they take them too."""
    yield half.get_submodule("conv_in"), False
    for module in half.modules():
        if isinstance(module, ResidualBlock):
            yield module.conv1, False
            yield module.conv2, False
            if module.conv_shortcut is not None:
                yield module.conv_shortcut, True
        elif isinstance(module, SpatialAttention):
            yield module.to_out[0], False
        elif isinstance(module, Downsample | Upsample):
            yield module.conv, True


def _multiply(layer: nn.Module, name: str, factor: float) -> None:
    parameter = layer.get_parameter(name)
    setattr(layer, name, nn.Parameter(parameter * factor, requires_grad=False))
