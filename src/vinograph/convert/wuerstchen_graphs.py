"""Würstchen's inference graphs: the modules of `vinograph.modules`, with all folded that doesn't depend on the step.

The first five classes are components of the bundle. Each takes over the weights of the module that it is made from,
which is spent then, so that a billion parameters are held once.

What is folded, exactly in real arithmetic:

- Stage B's image embedding goes through a 1×1 convolution (16 -> c_cond) and is concatenated into a linear layer: both
  are linear, so their product takes the 16 channels directly. The embedding arrives on each level's grid.
- The text's part of each attention's keys and values doesn't depend on the step: it is a graph of its own, with
  `kv_mapper` and `to_k` (`to_v`) multiplied into one layer.
- Global response norm's shift β goes into the bias of the layer after it.

Feature maps that pass between classes are [batch, channels, height, width]. Within a level they lie as its layers
want them (see :class:`Level`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.wuerstchen_blocks import (
    AttentionGraph,
    MixingGraph,
    ResidualGraph,
    TimestepGraph,
    linear,
    to_channels_first,
    to_channels_last,
)
from vinograph.modules import StageA, StageB, StageC
from vinograph.modules.blocks import AttentionBlock, ResidualBlock, TimestepBlock, timestep_embedding
from vinograph.modules.stage_a import MixingBlock
from vinograph.modules.stage_b import VARIANCE_FLOOR

# Levels of this width and more keep channels last: 1×1 convolutions, which need no transposes, are only 4 to 7% faster
# there than linear layers, and those become 1.5 times as fast with weights in int8. Below it convolutions are 16 to 30%
# faster, and as fast as int8 linear layers (widths 192 to 640 at 64² to 256², AVX-512 with BF16).
CHANNELS_LAST_WIDTH = 1024

Text = Iterator[tuple[Tensor, Tensor]]


class PriorText(nn.Module):
    """hidden_states [b, n, c_cond] -> keys, values [b, L, n, c], L being the prior's attention blocks in order."""

    def __init__(self, prior: StageC) -> None:
        super().__init__()
        self.cond_mapper = prior.cond_mapper
        self.projections = TextKeysValues(attention_blocks(prior))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        pairs = self.projections(self.cond_mapper(hidden_states))
        return torch.stack([keys for keys, _ in pairs], dim=1), torch.stack([values for _, values in pairs], dim=1)


class Prior(nn.Module):
    """x [b, 16, h, w], r [b], keys and values [b, L, n, c] -> noise, the shape of x."""

    def __init__(self, prior: StageC) -> None:
        super().__init__()
        self.c_in, self.c_r = prior.config.c_in, prior.config.c_r
        self.attentions = len(attention_blocks(prior))
        self.projection = prior.projection
        self.blocks = Level(prior.blocks, prior.config.c)
        self.out = prior.out

    def forward(self, x: Tensor, r: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See the class."""
        text = ((keys[:, turn], values[:, turn]) for turn in range(self.attentions))
        hidden = self.blocks(self.projection(x), timestep_embedding(r, self.c_r), text)
        a, b = self.out(hidden).split(self.c_in, dim=1)
        noise: Tensor = (x - a) / ((1 - b).abs() + 1e-5)
        return noise


class DecoderText(nn.Module):
    """hidden_states [b, n, clip_embd] -> keys, values [b, n, c_i] of each attention block of Stage B, in order."""

    def __init__(self, decoder: StageB) -> None:
        super().__init__()
        self.clip_mapper, self.seq_norm = decoder.clip_mapper, decoder.seq_norm
        self.projections = TextKeysValues(attention_blocks(decoder))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        pairs = self.projections(self.seq_norm(self.clip_mapper(hidden_states)))
        return tuple(tensor for pair in pairs for tensor in pair)


class Decoder(nn.Module):
    """x [b, 4, H, W], r [b], effnet_k [b, 16, H_k, W_k] of each level k that injects, keys_i, values_i -> noise."""

    def __init__(self, decoder: StageB) -> None:
        super().__init__()
        config = decoder.config
        self.c_out, self.c_r = config.c_out, config.c_r
        self.injects = config.inject_effnet
        self.embedding = decoder.embedding
        mappers = [mapper if isinstance(mapper, nn.Conv2d) else None for mapper in decoder.effnet_mappers]
        widths, levels = config.c_hidden, len(config.c_hidden)
        # A level's first block on the way down, and its last on the way up, changes the size.
        down = [list(blocks.children()) for blocks in decoder.down_blocks]
        self.halvings = nn.ModuleList(blocks.pop(0) for blocks in down[1:])
        up = [list(blocks.children()) for blocks in decoder.up_blocks]
        self.doublings = nn.ModuleList(blocks.pop() for blocks in up[:-1])
        self.down_levels = nn.ModuleList(map(Level, down, widths, mappers[:levels]))
        self.up_levels = nn.ModuleList(map(Level, up, widths[::-1], mappers[levels:]))
        self.clf = decoder.clf

    def forward(self, x: Tensor, r: Tensor, *conditions: Tensor) -> Tensor:
        """See the class."""
        r_embed = timestep_embedding(r, self.c_r)
        injected = sum(self.injects)
        maps = iter(conditions[:injected])
        embeddings = [next(maps) if inject else None for inject in self.injects]
        text = iter(zip(conditions[injected::2], conditions[injected + 1 :: 2], strict=True))

        hidden = self.embedding(x)
        shortcuts: list[Tensor] = []
        for index, level in enumerate(self.down_levels):
            hidden = self.halvings[index - 1](hidden) if index > 0 else hidden
            hidden = level(hidden, r_embed, text, embeddings[index])
            shortcuts.append(hidden)
        for index, level in enumerate(self.up_levels):
            shortcut = shortcuts[-1 - index] if index > 0 else None
            hidden = self.doublings[index - 1](hidden) if index > 0 else hidden
            hidden = level(hidden, r_embed, text, embeddings[-1 - index], shortcut)

        a, b = self.clf(hidden).split(self.c_out, dim=1)
        noise: Tensor = (x - a) / (b.sigmoid() * (1 - 2 * VARIANCE_FLOOR) + VARIANCE_FLOOR)
        return noise


class VqganDecoder(nn.Module):
    """latents [b, 4, H, W], times scale_factor -> image [b, 3, 4H, 4W], not clamped."""

    def __init__(self, vqgan: StageA) -> None:
        super().__init__()
        blocks = (MixingGraph(each) if isinstance(each, MixingBlock) else each for each in vqgan.up_blocks)
        self.up_blocks = nn.Sequential(*blocks)
        self.out_block = vqgan.out_block

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        image: Tensor = self.out_block(self.up_blocks(latents))
        return image


class Level(nn.Module):
    """Blocks of one width and size. Wide ones work with channels last and linear layers, others with 1×1 convolutions.

    x [batch, c, height, width], text: the keys and values of its attention blocks in turn; maps of its size that the
    residual blocks take: ``embedding`` all of them, ``shortcut`` the first. Gives the shape of x.
    """

    def __init__(self, blocks: Iterable[nn.Module], width: int, mapper: nn.Conv2d | None = None) -> None:
        super().__init__()
        self.channels_last = width >= CHANNELS_LAST_WIDTH
        self.blocks = nn.ModuleList(self._graph(block, mapper) for block in blocks)

    def _graph(self, block: nn.Module, mapper: nn.Conv2d | None) -> nn.Module:
        if isinstance(block, ResidualBlock):
            return ResidualGraph(block, mapper, self.channels_last)
        if isinstance(block, AttentionBlock):
            return AttentionGraph(block, self.channels_last)
        if isinstance(block, TimestepBlock):
            return TimestepGraph(block, self.channels_last)
        raise TypeError(f"no graph for a {type(block).__name__}")

    def forward(
        self,
        x: Tensor,
        r_embed: Tensor,
        text: Text,
        embedding: Tensor | None = None,
        shortcut: Tensor | None = None,
    ) -> Tensor:
        """See the class."""
        joined = [each for each in (shortcut, embedding) if each is not None]
        if self.channels_last:
            x, *joined = (to_channels_last(each) for each in (x, *joined))
        for index, block in enumerate(self.blocks):
            if isinstance(block, ResidualGraph):
                x = block(x, *(joined if index == 0 or shortcut is None else joined[1:]))
            elif isinstance(block, AttentionGraph):
                x = block(x, *next(text))
            else:
                x = block(x, r_embed)
        return to_channels_first(x) if self.channels_last else x


class TextKeysValues(nn.Module):
    """The text's part of the keys and values of attention blocks, from their common condition [batch, tokens, c_cond].

    Gives keys, values [batch, tokens, c] for each block, in order.
    """

    def __init__(self, blocks: list[AttentionBlock]) -> None:
        super().__init__()
        self.keys = nn.ModuleList(_fold_condition(block, block.attention.to_k) for block in blocks)
        self.values = nn.ModuleList(_fold_condition(block, block.attention.to_v) for block in blocks)

    def forward(self, condition: Tensor) -> list[tuple[Tensor, Tensor]]:
        """See the class."""
        active = F.silu(condition)
        return [(key(active), value(active)) for key, value in zip(self.keys, self.values, strict=True)]


def attention_blocks(model: nn.Module) -> list[AttentionBlock]:
    """The attention blocks of Stage B or C in order of execution."""
    return [module for module in model.modules() if isinstance(module, AttentionBlock)]


def _fold_condition(block: AttentionBlock, projection: nn.Linear) -> nn.Linear:
    """`projection` after the linear half of `kv_mapper`, as one layer."""
    mapper = block.kv_mapper[1]
    assert isinstance(mapper, nn.Linear)
    return linear(projection.weight @ mapper.weight, projection.bias + projection.weight @ mapper.bias)
