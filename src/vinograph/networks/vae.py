"""The KL autoencoder of latent diffusion: pictures to smaller latents, and back.

Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models (arXiv 2112.10752),
appendix G.1. Weights have the names of diffusers' AutoencoderKL.

With SDXL's own weights, feature maps exceed the range of half precision. They are the residual
stream: every block adds to it, and every block takes it through a group norm, so its scale can be
chosen. Here it is :data:`STREAM_SCALE`. What enters the stream is multiplied by it, which is exact
for a power of two, and the norms undo that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from vinograph.errors import DamagedModelError
from vinograph.networks.config import check_divisors, check_unshifted, read_config
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import attention, conv2d, group_norm, linear, reshape, reshape_like, silu, transpose
from vinograph.networks.residual import GroupNorm, downsample, into_stream, residual_block, upsample_block
from vinograph.networks.values import Value

STREAM_SCALE = 2.0**-6
"""With it, values of four million fit in f16, and weights keep their eleven bits down to 0.004."""

PICTURE = Port(("b", 3, "height", "width"))

_NORM_EPS = 1e-6
DECODER_IGNORED, ENCODER_IGNORED = r"(encoder|quant_conv)\..*", r"(decoder|post_quant_conv)\..*"
"""The tensors of the other half, when one half alone is built."""
_OLDER_ATTENTION: Mapping[str, str] = MappingProxyType(
    {
        ".query.": ".to_q.",
        ".key.": ".to_k.",
        ".value.": ".to_v.",
        ".proj_attn.": ".to_out.0.",
    }
)
_Tensor = TypeVar("_Tensor")


_FIXED: Mapping[str, Any] = MappingProxyType({"in_channels": 3, "out_channels": 3, "act_fn": "silu"})
_WITHOUT_EFFECT = ("sample_size", "force_upcast")


@dataclass(frozen=True)
class AutoencoderConfig:
    """The keys of the autoencoder's config.json that matter, with diffusers' defaults.

    Attributes:
        block_out_channels: channels of each level, the finest first.
        layers_per_block: residual blocks of each level of the encoder; the decoder has one more.
        latent_channels: channels of the latents.
        use_quant_conv, use_post_quant_conv: whether the encoder ends with a 1×1 convolution, and
            the decoder begins with one.
        mid_block_add_attention: whether the coarsest level has attention.
        scaling_factor: what the denoiser's latents are divided by before they are decoded.
        shift_factor: must be 0 or None; other families have one.
        latents_mean, latents_std: the mean and deviation of each channel of the latents, where the
            model has them.
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
        """From a config.json.

        Raises:
            ValueError: naming a key that is missing or unknown, or a value that isn't computed
                here.
        """
        return read_config(cls, mapping, fixed=_FIXED, without_effect=_WITHOUT_EFFECT)

    @property
    def scale_factor(self) -> int:
        """How many times smaller than the picture its latents are, in each direction."""
        return int(2 ** (len(self.block_out_channels) - 1))


def vae_decoder(config: AutoencoderConfig, weights: Weights) -> Network:
    """The decoder: latents [b, c, h, w] to pictures [b, 3, height, width] of about [-1, 1].

    The latents are already divided by the scaling factor.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def decode(latent_sample: Value) -> Value:
        hidden = latent_sample
        if config.use_post_quant_conv:
            hidden = conv2d(hidden, weights["post_quant_conv"], config.latent_channels, 1)
        return _decode(hidden, weights["decoder"], config)

    return build(weights, decoder_ports(config), decode, f16_safe=False)


def vae_encoder(config: AutoencoderConfig, weights: Weights) -> Network:
    """The encoder: pictures [b, 3, height, width] in [-1, 1] to the distribution of their latents.

    Its result [b, 2c, h, w] has the means in the first half of the channels, and the logarithms of
    the variances in the second.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def encode(sample: Value) -> Value:
        hidden = _encode(sample, weights["encoder"], config)
        return conv2d(hidden, weights["quant_conv"], hidden.size(1), 1) if config.use_quant_conv else hidden

    return build(weights, encoder_ports(config), encode, f16_safe=False)


def decoder_ports(config: AutoencoderConfig) -> Ports:
    """The ports of :func:`vae_decoder`."""
    return Ports({"latent_sample": Port(("b", config.latent_channels, "h", "w"))}, {"sample": PICTURE})


def encoder_ports(config: AutoencoderConfig) -> Ports:
    """The ports of :func:`vae_encoder`."""
    return Ports({"sample": PICTURE}, {"latent_parameters": Port(("b", 2 * config.latent_channels, "h", "w"))})


def with_current_names(tensors: Mapping[str, _Tensor], origin: str) -> dict[str, _Tensor]:
    """A checkpoint's tensors, with those of attention under their current names.

    Raises:
        DamagedModelError: a tensor is there under both names.
    """
    renamed: dict[str, _Tensor] = {}
    for name, tensor in tensors.items():
        current = _current_name(name)
        if current in renamed:
            raise DamagedModelError(f"{origin} has the tensor {current} twice, also under an older name")
        renamed[current] = tensor
    return renamed


def _current_name(name: str) -> str:
    for older, current in _OLDER_ATTENTION.items():
        name = name.replace(older, current)
    return name


def _encode(x: Value, weights: Weights, config: AutoencoderConfig) -> Value:
    """[b, 3, 2ⁿ h, 2ⁿ w] -> [b, 2c, h, w], where n is one less than the number of levels."""
    widths = config.block_out_channels
    x = conv2d(x, into_stream(weights["conv_in"], STREAM_SCALE), widths[0], 3, padding=1)
    for level, width in enumerate(widths):
        block = weights["down_blocks"][level]
        x = _residual_blocks(x, block["resnets"], width, config.layers_per_block, config)
        if level < len(widths) - 1:  # zeros on the right and at the bottom alone
            x = downsample(x, block["downsamplers"][0], padding=(0, 1), scale=STREAM_SCALE)
    x = _middle_block(x, weights["mid_block"], config)
    return _leave(x, weights, 2 * config.latent_channels, config)


def _decode(x: Value, weights: Weights, config: AutoencoderConfig) -> Value:
    """[b, c, h, w] -> [b, 3, 2ⁿ h, 2ⁿ w], where n is one less than the number of levels."""
    widths = config.block_out_channels[::-1]
    x = conv2d(x, into_stream(weights["conv_in"], STREAM_SCALE), widths[0], 3, padding=1)
    x = _middle_block(x, weights["mid_block"], config)
    for turn, width in enumerate(widths):
        block = weights["up_blocks"][turn]
        x = _residual_blocks(x, block["resnets"], width, config.layers_per_block + 1, config)
        if turn < len(widths) - 1:
            x = upsample_block(x, block["upsamplers"][0], scale=STREAM_SCALE)
    return _leave(x, weights, 3, config)


def _leave(x: Value, weights: Weights, channels: int, config: AutoencoderConfig) -> Value:
    """The end of either half: a norm, which undoes the stream's scale, SiLU and a convolution."""
    return conv2d(silu(_norm(x, weights["conv_norm_out"], config)), weights["conv_out"], channels, 3, padding=1)


def _norm(x: Value, weights: Weights, config: AutoencoderConfig) -> Value:
    """The group norm of the stream."""
    return group_norm(x, weights, config.norm_num_groups, _NORM_EPS * STREAM_SCALE**2)


def _residual_blocks(x: Value, weights: Weights, channels: int, count: int, config: AutoencoderConfig) -> Value:
    norm = GroupNorm(config.norm_num_groups, _NORM_EPS)
    for layer in range(count):
        x = residual_block(x, weights[layer], channels, norm, scale=STREAM_SCALE)
    return x


def _middle_block(x: Value, weights: Weights, config: AutoencoderConfig) -> Value:
    """Two residual blocks, with attention between them where the model has it."""
    norm = GroupNorm(config.norm_num_groups, _NORM_EPS)
    x = residual_block(x, weights["resnets"][0], x.size(1), norm, scale=STREAM_SCALE)
    if config.mid_block_add_attention:
        x = x + _attend(_norm(x, weights["attentions"][0]["group_norm"], config), weights["attentions"][0])
    return residual_block(x, weights["resnets"][1], x.size(1), norm, scale=STREAM_SCALE)


def _attend(x: Value, weights: Weights) -> Value:
    """Single-head attention among the positions of x [b, c, h, w], scaled for the stream."""
    channels = x.size(1)
    last = transpose(x, (0, 2, 3, 1))
    hidden = reshape(last, (0, 1, -1, channels))
    queries, keys, values = (linear(hidden, weights[name], channels) for name in ("to_q", "to_k", "to_v"))
    attended = attention(queries, keys, values)
    out = linear(attended, into_stream(weights["to_out"][0], STREAM_SCALE), channels)
    return transpose(reshape_like(out, last), (0, 3, 1, 2))
