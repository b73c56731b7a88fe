"""Stage C, the prior, which generates image embeddings from text."""

import math
from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from vinograph.families.wuerstchen.network_config import StageCConfig

from .blocks import (
    AttentionBlock,
    ChannelNorm,
    ResidualBlock,
    TimestepBlock,
    initialise_linear,
    timestep_embedding,
)


class StageC(nn.Module):
    """Würstchen's prior (arXiv 2306.00637): predicts the noise in embeddings, given the text.

    Names and shapes of the parameters are those of diffusers' `WuerstchenPrior`. Weights start as
    in the authors' code: the output at zero, and each residual block's last layer divided by
    √depth.
    """

    def __init__(self, config: StageCConfig) -> None:
        super().__init__()
        self.config = config
        c = config.c
        self.projection = nn.Conv2d(config.c_in, c, kernel_size=1)
        self.cond_mapper = nn.Sequential(nn.Linear(config.c_cond, c), nn.LeakyReLU(0.2), nn.Linear(c, c))
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            self.blocks.append(ResidualBlock(c, c_skip=0, kernel_size=3, dropout=config.dropout))
            self.blocks.append(TimestepBlock(c, config.c_r))
            self.blocks.append(AttentionBlock(c, c_cond=c, nhead=config.nhead, dropout=config.dropout))
        self.out = nn.Sequential(ChannelNorm(c), nn.Conv2d(c, 2 * config.c_in, kernel_size=1))
        self._initialise()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The module of a published config.json.

        Raises:
            ValueError: a key is unknown, or values don't fit together.
        """
        return cls(StageCConfig.from_mapping(config))

    def _initialise(self) -> None:
        self.apply(initialise_linear)
        for layer in (self.projection, self.cond_mapper[0], self.cond_mapper[2]):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.normal_(layer.weight, std=0.02)
        output = self.out[1]
        assert isinstance(output, nn.Conv2d)
        nn.init.zeros_(output.weight)
        for block in self.blocks:
            if isinstance(block, ResidualBlock):
                block.output.weight.data.mul_(math.sqrt(1 / self.config.depth))
            elif isinstance(block, TimestepBlock):
                nn.init.zeros_(block.mapper.weight)

    def forward(self, x: Tensor, r: Tensor, c: Tensor) -> Tensor:
        """The noise predicted in `x`.

        Args:
            x: [batch, c_in, height, width], noised embeddings on the prior's scale, (embedding + 1)
            / 42. r: [batch], time in [0, 1], 1 being pure noise. c: [batch, tokens, c_cond], the
            text encoder's last hidden states.

        Returns:
            The shape of `x`.
        """
        condition = self.cond_mapper(c)
        r_embed = timestep_embedding(r, self.config.c_r)
        hidden = self.projection(x)
        for block in self.blocks:
            if isinstance(block, AttentionBlock):
                hidden = block(hidden, condition)
            elif isinstance(block, TimestepBlock):
                hidden = block(hidden, r_embed)
            else:
                hidden = block(hidden)
        a, b = self.out(hidden).chunk(2, dim=1)
        noise: Tensor = (x - a) / ((1 - b).abs() + 1e-5)
        return noise
