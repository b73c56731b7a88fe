"""Stage B, the decoder, which generates Stage A's latents from image embeddings."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.families.wuerstchen.network_config import StageBConfig

from .blocks import (
    AttentionBlock,
    ChannelNorm,
    ResidualBlock,
    TimestepBlock,
    initialise_linear,
    timestep_embedding,
)

VARIANCE_FLOOR = 1e-3


def resize_embeddings(effnet: Tensor, size: tuple[int, int]) -> Tensor:
    """`effnet` [batch, channels, h, w] resized to `size` (height, width).

    Bicubic, antialiased, corners aligned. Computed in f32, whatever the dtype, which is kept.
    """
    resized = F.interpolate(effnet.float(), size=size, mode="bicubic", antialias=True, align_corners=True)
    return resized.to(effnet.dtype)


class StageB(nn.Module):
    """Würstchen's decoder (arXiv 2306.00637): predicts the noise in latents, given embeddings.

    A U-Net of ConvNeXt V2 blocks. Names and shapes of the parameters are those of diffusers'
    `WuerstchenDiffNeXt`. Weights start as in the authors' code: the output at zero, and each
    residual block's last layer divided by √(sum of blocks).
    """

    def __init__(self, config: StageBConfig) -> None:
        super().__init__()
        self.config = config
        c_hidden, patch_area = config.c_hidden, config.patch_size**2
        self.clip_mapper = nn.Linear(config.clip_embd, config.c_cond)
        self.effnet_mappers = nn.ModuleList(
            [
                # A level without injection keeps its place in the numbering of the parameters.
                nn.Conv2d(config.effnet_embd, config.c_cond, kernel_size=1) if inject else nn.Identity()
                for inject in (*config.inject_effnet, *reversed(config.inject_effnet))
            ]
        )
        self.seq_norm = nn.LayerNorm(config.c_cond, eps=1e-6, elementwise_affine=False)
        self.embedding = nn.Sequential(
            nn.PixelUnshuffle(config.patch_size),
            nn.Conv2d(config.c_in * patch_area, c_hidden[0], kernel_size=1),
            ChannelNorm(c_hidden[0]),
        )
        levels = range(len(c_hidden))
        self.down_blocks = nn.ModuleList([self._down_level(level) for level in levels])
        self.up_blocks = nn.ModuleList([self._up_level(level) for level in reversed(levels)])
        self.clf = nn.Sequential(
            ChannelNorm(c_hidden[0]),
            nn.Conv2d(c_hidden[0], 2 * config.c_out * patch_area, kernel_size=1),
            nn.PixelShuffle(config.patch_size),
        )
        self._initialise()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The module of a published config.json.

        Raises:
            ValueError: a key is unknown, or values don't fit together.
        """
        return cls(StageBConfig.from_mapping(config))

    def _blocks(self, level: int, skip_channels: int) -> list[nn.Module]:
        """The blocks of `level`; the first, if residual, also takes `skip_channels`."""
        config, c, dropout = self.config, self.config.c_hidden[level], self.config.level_dropout(level)
        blocks: list[nn.Module] = []
        for kind in config.level_config[level] * config.blocks[level]:
            if kind == "C":
                c_skip = config.c_cond if config.inject_effnet[level] else 0
                c_skip += 0 if blocks else skip_channels
                blocks.append(ResidualBlock(c, c_skip, config.kernel_size, dropout))
            elif kind == "T":
                blocks.append(TimestepBlock(c, config.c_r))
            else:
                blocks.append(AttentionBlock(c, config.c_cond, config.nhead[level], dropout))
        return blocks

    def _down_level(self, level: int) -> nn.ModuleList:
        c_hidden, blocks = self.config.c_hidden, self._blocks(level, skip_channels=0)
        if level > 0:
            halve = nn.Conv2d(c_hidden[level - 1], c_hidden[level], kernel_size=2, stride=2)
            blocks.insert(0, nn.Sequential(ChannelNorm(c_hidden[level - 1]), halve))
        return nn.ModuleList(blocks)

    def _up_level(self, level: int) -> nn.ModuleList:
        c_hidden, deepest = self.config.c_hidden, len(self.config.c_hidden) - 1
        blocks = self._blocks(level, skip_channels=c_hidden[level] if level < deepest else 0)
        if level > 0:
            double = nn.ConvTranspose2d(c_hidden[level], c_hidden[level - 1], kernel_size=2, stride=2)
            blocks.append(nn.Sequential(ChannelNorm(c_hidden[level]), double))
        return nn.ModuleList(blocks)

    def _initialise(self) -> None:
        self.apply(initialise_linear)
        for mapper in (self.clip_mapper, *self.effnet_mappers):
            if isinstance(mapper, nn.Conv2d | nn.Linear):
                nn.init.normal_(mapper.weight, std=0.02)
        patches, output = self.embedding[1], self.clf[1]
        assert isinstance(patches, nn.Conv2d)
        assert isinstance(output, nn.Conv2d)
        nn.init.xavier_uniform_(patches.weight, gain=0.02)
        nn.init.zeros_(output.weight)
        for block in self.modules():
            if isinstance(block, ResidualBlock):
                block.output.weight.data.mul_(math.sqrt(1 / sum(self.config.blocks)))
            elif isinstance(block, TimestepBlock):
                nn.init.zeros_(block.mapper.weight)

    def resized_embeddings(self, effnet: Tensor, height: int, width: int) -> list[Tensor | None]:
        """`effnet` resized for each level, or None for a level without injection.

        It doesn't depend on the noised latents or the time, so a sampler needs it once per picture.
        Export `predict` rather than `forward`: OpenVINO 2026.4 converts this resize to one with
        other results. `height` and `width` are those of the latents.
        """
        rows, columns = height // self.config.patch_size, width // self.config.patch_size
        return [
            resize_embeddings(effnet, (rows // 2**level, columns // 2**level)) if inject else None
            for level, inject in enumerate(self.config.inject_effnet)
        ]

    def forward(
        self, x: Tensor, r: Tensor, effnet: Tensor, clip: Tensor | None = None, return_noise: bool = True
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The noise predicted in `x`.

        Args:
            x: [batch, c_in, height, width], noised latents. Height and width are multiples of
                patch_size · 2^(levels − 1).
            r: [batch], time in [0, 1], 1 being pure noise.
            effnet: [batch, effnet_embd, h, w], image embeddings, of any size.
            clip: [batch, tokens, clip_embd], the text encoder's last hidden states.
            return_noise: return the noise, or else the (a, b) of noise = (x − a) / b.

        Returns:
            [batch, c_out, height, width], or two of them.

        Raises:
            ValueError: `clip` is None though some level has attention.
        """
        embeddings = self.resized_embeddings(effnet, x.shape[-2], x.shape[-1])
        a, b = self.predict(x, r, embeddings, clip)
        return (x - a) / b if return_noise else (a, b)

    def predict(
        self, x: Tensor, r: Tensor, embeddings: list[Tensor | None], clip: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The (a, b) of `forward`, for `embeddings` from `resized_embeddings`."""
        if clip is None and any("A" in kinds for kinds in self.config.level_config):
            raise ValueError("clip is None, but the configuration has attention blocks, which attend to it")
        condition = None if clip is None else self.seq_norm(self.clip_mapper(clip))
        r_embed = timestep_embedding(r, self.config.c_r)
        levels = len(self.down_blocks)

        hidden: Tensor = self.embedding(x)
        skips: list[Tensor] = []
        for level in range(levels):
            embedding = self._mapped(level, embeddings[level])
            hidden = self._run(self.down_blocks[level], hidden, r_embed, embedding, condition)
            skips.append(hidden)
        for turn, level in enumerate(reversed(range(levels))):
            embedding = self._mapped(levels + turn, embeddings[level])
            skip = skips[level] if turn > 0 else None
            hidden = self._run(self.up_blocks[turn], hidden, r_embed, embedding, condition, skip)

        a, b = self.clf(hidden).chunk(2, dim=1)
        return a, b.sigmoid() * (1 - 2 * VARIANCE_FLOOR) + VARIANCE_FLOOR

    def _mapped(self, mapper: int, embedding: Tensor | None) -> Tensor | None:
        return None if embedding is None else self.effnet_mappers[mapper](embedding)

    @staticmethod
    def _run(
        blocks: nn.Module,
        x: Tensor,
        r_embed: Tensor,
        embedding: Tensor | None,
        condition: Tensor | None,
        skip: Tensor | None = None,
    ) -> Tensor:
        """The output of one level's blocks; only its first block takes the skip, if residual."""
        for index, block in enumerate(blocks.children()):
            if isinstance(block, ResidualBlock):
                joined = [part for part in (skip if index == 0 else None, embedding) if part is not None]
                x = block(x, torch.cat(joined, dim=1) if joined else None)
            elif isinstance(block, AttentionBlock):
                x = block(x, condition)
            elif isinstance(block, TimestepBlock):
                x = block(x, r_embed)
            else:
                x = block(x)
        return x
