"""The configurations of Würstchen's three stages and of its image encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Self

from vinograph.networks.config import parse_config, require

STEM_STRIDE = 2
STRIDE = 32


class _StageConfig:
    """What the configurations of the three stages share."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Read a config.json.

        Raises:
            ValueError: naming a key that is unknown, or a value that makes no sense.
        """
        return parse_config(cls, mapping)


@dataclass(frozen=True)
class StageAConfig(_StageConfig):
    """The keys of the VQGAN's config.json, with diffusers' defaults.

    The published models have these very values.

    Attributes:
        in_channels, out_channels: channels of a picture.
        up_down_scale_factor: side of the squares of pixels that make one position of the first
            level.
        levels: the picture is up_down_scale_factor · 2^(levels − 1) times as wide as its latents.
        bottleneck_blocks: blocks of the decoder at the latents' size.
        embed_dim: channels of the network at the latents' size, half as many on each finer level.
        latent_channels: channels of the latents.
        num_vq_embeddings: vectors of the codebook.
        scale_factor: what Stage B's latents are multiplied by before they are decoded.
    """

    in_channels: int = 3
    out_channels: int = 3
    up_down_scale_factor: int = 2
    levels: int = 2
    bottleneck_blocks: int = 12
    embed_dim: int = 384
    latent_channels: int = 4
    num_vq_embeddings: int = 8192
    scale_factor: float = 0.3764

    def __post_init__(self) -> None:
        require(self.levels >= 1, f"levels is {self.levels}; it must be at least 1")


@dataclass(frozen=True)
class StageBConfig(_StageConfig):
    """The keys of the decoder's config.json, with diffusers' defaults.

    The published models have these very values. Tuples have one entry for each level, the finest
    first.

    Attributes:
        c_in, c_out: channels of the latents, going in and coming out.
        c_r: channels of the time's embedding.
        patch_size: side of the squares of latents that make one position of the first level.
        c_cond: channels that the text's and the image's embeddings are mapped to.
        c_hidden: channels of the network.
        nhead: attention heads; divides c_hidden where the level has attention, unused elsewhere.
        blocks: repetitions of the level's blocks on the way down, and again on the way up.
        level_config: kinds of block, in order: C residual, T timestep, A attention.
        inject_effnet: whether the level's residual blocks see the image embedding.
        effnet_embd: channels of an image embedding.
        clip_embd: channels of the text encoder's hidden states.
        kernel_size: of the depthwise convolutions; odd.
        dropout: share of values dropped in training, in [0, 1), for all levels or for each.
    """

    c_in: int = 4
    c_out: int = 4
    c_r: int = 64
    patch_size: int = 2
    c_cond: int = 1024
    c_hidden: tuple[int, ...] = (320, 640, 1280, 1280)
    nhead: tuple[int, ...] = (-1, 10, 20, 20)
    blocks: tuple[int, ...] = (4, 4, 14, 4)
    level_config: tuple[str, ...] = ("CT", "CTA", "CTA", "CTA")
    inject_effnet: tuple[bool, ...] = (False, True, True, True)
    effnet_embd: int = 16
    clip_embd: int = 1024
    kernel_size: int = 3
    dropout: float | tuple[float, ...] = 0.1

    def __post_init__(self) -> None:
        require(self.c_r >= 4, f"c_r is {self.c_r}; it must be at least 4")
        require(self.kernel_size % 2 == 1, f"kernel_size is {self.kernel_size}; it must be odd")
        levels = len(self.c_hidden)
        for name in ("nhead", "blocks", "level_config", "inject_effnet"):
            entries = len(getattr(self, name))
            require(entries == levels, f"{name} has {entries} levels, c_hidden has {levels}")
        if isinstance(self.dropout, tuple):
            entries = len(self.dropout)
            require(entries == levels, f"dropout has {entries} levels, c_hidden has {levels}")
        for c, nhead, kinds in zip(self.c_hidden, self.nhead, self.level_config, strict=True):
            require(set(kinds) <= set("CTA"), f"level_config has {kinds!r}; the kinds are C, T and A")
            heads_fit = "A" not in kinds or (nhead > 0 and c % nhead == 0)
            require(heads_fit, f"nhead {nhead} does not divide c_hidden {c}")

    def level_dropout(self, level: int) -> float:
        """The share of values that training drops at `level`."""
        return self.dropout[level] if isinstance(self.dropout, tuple) else self.dropout


@dataclass(frozen=True)
class StageCConfig(_StageConfig):
    """The keys of the prior's config.json, with diffusers' defaults.

    The published models give every key, with c 1536, c_cond 1280, depth 32 and 24 heads.

    Attributes:
        c_in: channels of an image embedding.
        c: channels of the network.
        c_cond: channels of the text encoder's hidden states.
        c_r: channels of the time's embedding.
        depth: groups of a residual, a timestep and an attention block.
        nhead: attention heads; divides c.
        dropout: share of values dropped in training, in [0, 1).
    """

    c_in: int = 16
    c: int = 1280
    c_cond: int = 1024
    c_r: int = 64
    depth: int = 16
    nhead: int = 16
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require(self.c_r >= 4, f"c_r is {self.c_r}; it must be at least 4")
        require(self.nhead > 0 and self.c % self.nhead == 0, f"nhead {self.nhead} does not divide c {self.c}")


@dataclass(frozen=True)
class EncoderStage:
    """One row of the paper's table 4: `layers` blocks, of which the first changes size and width.

    Attributes:
        kind: "fused" expands by a full convolution, "plain" by a 1×1 and a depthwise one, with
            squeeze and excitation.
        expand_ratio: of a block's inner width to its input's.
        kernel: side of the convolution, odd.
        stride: of the first block, 1 or 2.
        c_out: channels that the stage gives.
        layers: blocks.
    """

    kind: str
    expand_ratio: int
    kernel: int
    stride: int
    c_out: int
    layers: int

    def __post_init__(self) -> None:
        require(self.kind in ("fused", "plain"), f"kind is {self.kind!r}; it must be 'fused' or 'plain'")
        require(self.kernel % 2 == 1, f"kernel is {self.kernel}; it must be odd")
        require(self.layers >= 1, f"layers is {self.layers}; it must be at least 1")


EFFICIENTNET_V2_S = (
    EncoderStage("fused", expand_ratio=1, kernel=3, stride=1, c_out=24, layers=2),
    EncoderStage("fused", expand_ratio=4, kernel=3, stride=2, c_out=48, layers=4),
    EncoderStage("fused", expand_ratio=4, kernel=3, stride=2, c_out=64, layers=4),
    EncoderStage("plain", expand_ratio=4, kernel=3, stride=2, c_out=128, layers=6),
    EncoderStage("plain", expand_ratio=6, kernel=3, stride=1, c_out=160, layers=9),
    EncoderStage("plain", expand_ratio=6, kernel=3, stride=2, c_out=256, layers=15),
)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """An encoder of EfficientNetV2's kind; by default the published one, EfficientNetV2-S.

    Attributes:
        c_latent: channels of an embedding.
        stem: channels after the first convolution, whose stride is 2.
        stages: whose strides, and the stem's, multiply to 32.
        head: channels of the backbone's features.
    """

    c_latent: int = 16
    stem: int = 24
    stages: tuple[EncoderStage, ...] = EFFICIENTNET_V2_S
    head: int = 1280

    def __post_init__(self) -> None:
        stride = STEM_STRIDE * prod(stage.stride for stage in self.stages)
        require(stride == STRIDE, f"the strides of stem and stages multiply to {stride}; they must to {STRIDE}")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Read a config.json.

        Raises:
            ValueError: naming a key that is unknown, or a value that makes no sense.
        """
        given = dict(mapping)
        if "stages" in given:
            given["stages"] = [parse_config(EncoderStage, stage) for stage in given["stages"]]
        return parse_config(cls, given)
