"""The configuration of PixArt's transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vinograph.networks.config import read_config, with_square_size

_CONDITIONED_SIZE = 128
_FIXED: Mapping[str, Any] = MappingProxyType(
    {
        "in_channels": 4,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "attention_type": "default",
        "double_self_attention": False,
        "only_cross_attention": False,
        "use_linear_projection": False,
        "num_vector_embeds": None,
    }
)
# dropout is for training; the two counts are of layers that this transformer doesn't have;
# attention's scores are summed up in full precision where it matters, whatever upcast_attention
# says.
_WITHOUT_EFFECT = ("dropout", "norm_num_groups", "num_embeds_ada_norm", "upcast_attention")


@dataclass(frozen=True)
class TransformerConfig:
    """The keys of the transformer's config.json that matter, with diffusers' defaults.

    Attributes:
        sample_size: height and width of the latents that the model was trained on.
        patch_size: height and width of the patches that the latents are cut into.
        out_channels: twice the latents' where the model has learned the variance too; None: the
            latents'.
        cross_attention_dim: width of what the text is projected to.
        caption_channels: width of the text encoder's hidden states.
        interpolation_scale: by how much positions are closer together than in the model of 512
            pixels.
        use_additional_conditions: whether the model takes the picture's size; None: only a model of
            1024 pixels does.
    """

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    out_channels: int | None = 8
    num_layers: int = 28
    cross_attention_dim: int = 1152
    attention_bias: bool = True
    sample_size: int = 128
    patch_size: int = 2
    norm_eps: float = 1e-6
    interpolation_scale: float | None = None
    use_additional_conditions: bool | None = None
    caption_channels: int | None = None

    def __post_init__(self) -> None:
        if self.caption_channels is None:
            raise ValueError("caption_channels is missing")
        if self.width != self.cross_attention_dim:
            raise ValueError(
                f"cross_attention_dim is {self.cross_attention_dim}; it has to be the width of the hidden states, "
                f"{self.num_attention_heads} heads of {self.attention_head_dim}"
            )
        if self.width % 4:
            raise ValueError(f"the hidden states are {self.width} wide, which sines and cosines don't share evenly")
        if self.size_conditions and self.width % 3:
            raise ValueError(f"the hidden states are {self.width} wide, which three conditions don't share evenly")
        if self.patch_size < 1 or self.sample_size < self.patch_size:
            raise ValueError(f"patch_size is {self.patch_size} for latents of {self.sample_size}")
        if self.scale <= 0:
            raise ValueError(f"interpolation_scale is {self.scale}")
        if self.channels not in (4, 8):
            raise ValueError(f"out_channels is {self.channels}; 4 and 8 are computed")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TransformerConfig:
        """Read a config.json.

        Raises:
            ValueError: naming a key that is missing or unknown, or a value that isn't computed
                here.
        """
        return read_config(cls, with_square_size(mapping), fixed=_FIXED, without_effect=_WITHOUT_EFFECT)

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def text_width(self) -> int:
        """Width of the text encoder's hidden states."""
        assert self.caption_channels is not None
        return self.caption_channels

    @property
    def channels(self) -> int:
        """Channels of the output."""
        return 4 if self.out_channels is None else self.out_channels

    @property
    def scale(self) -> float:
        """The interpolation scale."""
        given = self.interpolation_scale
        return max(self.sample_size // 64, 1) if given is None else given

    @property
    def size_conditions(self) -> bool:
        """Whether the transformer takes the picture's resolution and aspect ratio."""
        given = self.use_additional_conditions
        return self.sample_size == _CONDITIONED_SIZE if given is None else given
