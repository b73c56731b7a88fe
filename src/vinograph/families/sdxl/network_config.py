"""The configuration of SDXL's UNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vinograph.networks.config import broadcast, read_config, with_square_size

DOWN, DOWN_TEXT = "DownBlock2D", "CrossAttnDownBlock2D"
UP, UP_TEXT = "UpBlock2D", "CrossAttnUpBlock2D"
MIDDLE, MIDDLE_TEXT = "UNetMidBlock2D", "UNetMidBlock2DCrossAttn"

# What else a UNet2DConditionModel's configuration may say: the one value of each key that is
# computed here.
_FIXED: Mapping[str, Any] = MappingProxyType(
    {
        "out_channels": 4,
        "center_input_sample": False,
        "only_cross_attention": False,
        "mid_block_only_cross_attention": False,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
        "act_fn": "silu",
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "num_attention_heads": None,
        "dual_cross_attention": False,
        "class_embed_type": None,
        "num_class_embeds": None,
        "resnet_time_scale_shift": "default",
        "resnet_skip_time_act": False,
        "resnet_out_scale_factor": 1,
        "time_embedding_type": "positional",
        "time_embedding_act_fn": None,
        "timestep_post_act": None,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "attention_type": "default",
        "class_embeddings_concat": False,
        "cross_attention_norm": None,
    }
)
# Keys that change nothing in f32 when drawing.
_WITHOUT_EFFECT = ("dropout", "upcast_attention", "addition_embed_type_num_heads")

_SAMPLE_SIZE = 128
LATENT_CHANNELS, INPAINTING_CHANNELS = 4, 9
"""Channels of the UNet's sample: latents alone, or with a mask and a masked picture's latents."""

Layers = int | tuple[int, ...]


@dataclass(frozen=True)
class UNetConfig:
    """The keys of the UNet's config.json that set its size, with diffusers' defaults.

    Attributes:
        in_channels: channels of the sample; 9 in inpainting models, which take a mask and a masked
            picture's latents as well.
        sample_size: height and width of the latents that it was trained on; 128 where the
            configuration doesn't say, as in diffusers' pipelines.
        block_out_channels: channels of each level, the finest first.
        down_block_types, up_block_types, mid_block_type: where there are transformers.
        layers_per_block: residual blocks of each level, on the way down.
        transformer_layers_per_block: depth of the transformers of each level; one number, or one
            for each of them.
        reverse_transformer_layers_per_block: the same on the way up, the coarsest level first.
        attention_head_dim: in spite of its name, the number of heads of each level.
        cross_attention_dim: width of the text's hidden states.
        addition_embed_type: what is added to the time: "text_time", the pooled text and sizes in
            pixels.
        addition_time_embed_dim: width of the embedding of each of the six sizes.
        projection_class_embeddings_input_dim: width of the pooled text and the six embeddings
            together.
        time_cond_proj_dim: width of the guidance scale's embedding; None where the model takes
            none.
    """

    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    cross_attention_dim: Layers
    addition_embed_type: str
    addition_time_embed_dim: int
    projection_class_embeddings_input_dim: int
    in_channels: int = LATENT_CHANNELS
    sample_size: int = _SAMPLE_SIZE
    mid_block_type: str | None = MIDDLE_TEXT
    layers_per_block: Layers = 2
    transformer_layers_per_block: int | tuple[Layers, ...] = 1
    reverse_transformer_layers_per_block: tuple[Layers, ...] | None = None
    attention_head_dim: Layers = 8
    use_linear_projection: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    time_embedding_dim: int | None = None
    time_cond_proj_dim: int | None = None

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if not levels:
            raise ValueError("block_out_channels is empty")
        if self.in_channels not in (LATENT_CHANNELS, INPAINTING_CHANNELS):
            raise ValueError(f"in_channels is {self.in_channels}; known are 4, and 9 of inpainting models")
        if self.sample_size < 1:
            raise ValueError(f"sample_size is {self.sample_size}; a number from 1 up should be there")
        for name, types, known in (
            ("down_block_types", self.down_block_types, (DOWN, DOWN_TEXT)),
            ("up_block_types", self.up_block_types, (UP, UP_TEXT)),
        ):
            if len(types) != levels:
                raise ValueError(f"{name} has {len(types)} entries for {levels} levels")
            for kind in types:
                if kind not in known:
                    raise ValueError(f"{name} has {kind!r}; known are {', '.join(known)}")
        if self.addition_embed_type != "text_time":
            raise ValueError(f"addition_embed_type is {self.addition_embed_type!r}; SDXL's is 'text_time'")
        if self.mid_block_type not in (None, MIDDLE, MIDDLE_TEXT):
            raise ValueError(f"mid_block_type is {self.mid_block_type!r}; known are {MIDDLE_TEXT}, {MIDDLE}, null")
        for channels, heads in zip(self.block_out_channels, self.heads, strict=True):
            if heads < 1 or channels % heads:
                raise ValueError(f"attention_head_dim {heads} does not divide block_out_channels {channels}")
        nested = isinstance(self.transformer_layers_per_block, tuple) and any(
            isinstance(each, tuple) for each in self.transformer_layers_per_block
        )
        if nested and self.reverse_transformer_layers_per_block is None:
            raise ValueError(
                "transformer_layers_per_block has lists in it, so reverse_transformer_layers_per_block must be set"
            )
        self._check_depths()
        if len(set(self.text_widths)) > 1:
            raise ValueError(f"cross_attention_dim is {self.cross_attention_dim}, different for each level")
        if self.pooled_width < 1:
            raise ValueError(
                f"projection_class_embeddings_input_dim {self.projection_class_embeddings_input_dim} has no room for "
                f"six times addition_time_embed_dim {self.addition_time_embed_dim} and the pooled text"
            )

    def _check_depths(self) -> None:
        """Check that every transformer has a depth. Raises ValueError where one hasn't."""
        down, up = "transformer_layers_per_block", "reverse_transformer_layers_per_block"
        for kind, depth, layers in zip(self.down_block_types, self.depths, self.layers, strict=True):
            if kind == DOWN_TEXT:
                broadcast(down, depth, layers)
        if self.mid_block_type == MIDDLE_TEXT:
            broadcast(down, self.depths[-1], 1)
        for kind, depth, layers in zip(self.up_block_types, self.up_depths, reversed(self.layers), strict=True):
            if kind == UP_TEXT:
                broadcast(up, depth, layers + 1)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> UNetConfig:
        """Read a config.json.

        Raises:
            ValueError: naming a key that is missing or unknown, or a value that isn't computed
                here.
        """
        if mapping.get("sample_size") is None:
            mapping = {**mapping, "sample_size": _SAMPLE_SIZE}
        return read_config(cls, with_square_size(mapping), fixed=_FIXED, without_effect=_WITHOUT_EFFECT)

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each level."""
        return broadcast("attention_head_dim", self.attention_head_dim, len(self.block_out_channels))

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual blocks of each level, on the way down."""
        return broadcast("layers_per_block", self.layers_per_block, len(self.block_out_channels))

    @property
    def depths(self) -> tuple[Layers, ...]:
        """Depth of each level's transformers on the way down, as one number or one for each."""
        levels = len(self.block_out_channels)
        return broadcast("transformer_layers_per_block", self.transformer_layers_per_block, levels)

    @property
    def up_depths(self) -> tuple[Layers, ...]:
        """Depth of each level's transformers on the way up, the coarsest level first."""
        given = self.reverse_transformer_layers_per_block or self.depths[::-1]
        return broadcast("reverse_transformer_layers_per_block", given, len(self.block_out_channels))

    @property
    def text_widths(self) -> tuple[int, ...]:
        """Width of the text's hidden states at each level."""
        return broadcast("cross_attention_dim", self.cross_attention_dim, len(self.block_out_channels))

    @property
    def text_width(self) -> int:
        """Width of the text's hidden states."""
        return self.text_widths[0]

    @property
    def pooled_width(self) -> int:
        """Width of the pooled text."""
        return self.projection_class_embeddings_input_dim - 6 * self.addition_time_embed_dim


def transformer_depths(has_text: bool, depth: Layers, count: int) -> tuple[int, ...]:
    """Depth of the transformer after each of ``count`` residual blocks; 0 means none."""
    return broadcast("transformer_layers_per_block", depth, count) if has_text else (0,) * count
