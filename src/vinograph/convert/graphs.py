"""Würstchen's inference graphs: the modules of `vinograph.modules` with everything folded that doesn't depend on the step.

Each class here is one component of the bundle, in the form that OpenVINO runs fastest. They take over the weights
of the module they are made from (which is spent then), so that a billion parameters are held once.

Inside, feature maps are [batch, height, width, channels], where layer norms and linear layers want them; only
convolutions see [batch, channels, height, width].

What is folded, exactly in real arithmetic:

- Stage B's image embedding goes through a 1×1 convolution (16 -> c_cond) and is concatenated into a linear layer: both
  are linear, so their product takes the 16 channels directly. The embedding arrives on each level's grid.
- The text's part of each attention's keys and values doesn't depend on the step: it is a graph of its own, with
  `kv_mapper` and `to_k` (`to_v`) multiplied into one layer.
- Global response norm's shift β goes into the bias of the layer after it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.modules import StageA, StageB, StageC
from vinograph.modules.blocks import (
    NORM_EPS,
    AttentionBlock,
    ResidualBlock,
    TimestepBlock,
    timestep_embedding,
)
from vinograph.modules.stage_a import MixingBlock
from vinograph.modules.stage_b import VARIANCE_FLOOR


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer that holds `weight` [out, in] and `bias` [out] themselves."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def to_channels_last(x: Tensor) -> Tensor:
    """[batch, channels, height, width] -> [batch, height, width, channels]."""
    return x.permute(0, 2, 3, 1)


def to_channels_first(x: Tensor) -> Tensor:
    """[batch, height, width, channels] -> [batch, channels, height, width]."""
    return x.permute(0, 3, 1, 2)


def halves(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The first and second half of `x` along `dim`; unlike `chunk`, without arithmetic on shapes in the graph."""
    first, second = x.split(x.size(dim) // 2, dim)
    return first, second


class Residual(nn.Module):
    """A `ResidualBlock` over [batch, height, width, c]; `joined` maps are concatenated after the norm.

    With `mapper` the last of the joined maps is the image embedding itself, before that convolution.
    """

    def __init__(self, block: ResidualBlock, mapper: nn.Conv2d | None) -> None:
        super().__init__()
        expand, contract = block.channelwise[0], block.channelwise[4]
        response = block.channelwise[2]
        self.depthwise = block.depthwise
        self.norm = block.norm
        self.gamma = response.gamma
        self.expand = _fold_mapper(expand, mapper) if mapper is not None else expand
        self.contract = _linear(contract.weight, contract.bias + contract.weight @ response.beta.flatten())
        del block.channelwise

    def forward(self, x: Tensor, *joined: Tensor) -> Tensor:
        hidden = self.norm(to_channels_last(self.depthwise(to_channels_first(x))))
        if joined:
            hidden = torch.cat([hidden, *joined], dim=-1)
        hidden = F.gelu(self.expand(hidden))
        energy = torch.linalg.vector_norm(hidden, dim=(1, 2), keepdim=True)
        scale = 1 + self.gamma * (energy / (energy.mean(dim=-1, keepdim=True) + NORM_EPS))
        out: Tensor = x + self.contract(hidden * scale)
        return out


def _fold_mapper(expand: nn.Linear, mapper: nn.Conv2d) -> nn.Linear:
    """`expand` of [rest, mapper(embedding)] as one layer of [rest, embedding]."""
    width = mapper.out_channels
    direct, mapped = expand.weight[:, :-width], expand.weight[:, -width:]
    weight = torch.cat([direct, mapped @ mapper.weight.flatten(1)], dim=1)
    return _linear(weight, expand.bias + mapped @ mapper.bias)


class Timestep(nn.Module):
    """A `TimestepBlock` over [batch, height, width, channels]."""

    def __init__(self, block: TimestepBlock) -> None:
        super().__init__()
        self.mapper = block.mapper

    def forward(self, x: Tensor, r_embed: Tensor) -> Tensor:
        scale, shift = halves(self.mapper(r_embed)[:, None, None, :], dim=-1)
        return x * (1 + scale) + shift


class Attention(nn.Module):
    """An `AttentionBlock` over [batch, height, width, c], given the text's keys and values [batch, tokens, c]."""

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        attention = block.attention
        self.nhead = attention.nhead
        self.norm = block.norm
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.to_out = attention.to_out[0]

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.nhead, -1)).transpose(1, 2)

    def forward(self, x: Tensor, text_keys: Tensor, text_values: Tensor) -> Tensor:
        positions = self.norm(x).flatten(1, 2)
        keys = torch.cat([self.to_k(positions), text_keys], dim=1)
        values = torch.cat([self.to_v(positions), text_values], dim=1)
        attended = F.scaled_dot_product_attention(
            self._heads(self.to_q(positions)), self._heads(keys), self._heads(values)
        )
        out: Tensor = x + self.to_out(attended.transpose(1, 2).flatten(2)).reshape(x.shape)
        return out


class TextKeysValues(nn.Module):
    """The text's part of the keys and values of attention blocks, from their common condition [batch, tokens, c_cond].

    Gives keys, values [batch, tokens, c] for each block, in order.
    """

    def __init__(self, blocks: list[AttentionBlock]) -> None:
        super().__init__()
        self.keys = nn.ModuleList(_fold_condition(block, block.attention.to_k) for block in blocks)
        self.values = nn.ModuleList(_fold_condition(block, block.attention.to_v) for block in blocks)

    def forward(self, condition: Tensor) -> list[tuple[Tensor, Tensor]]:
        active = F.silu(condition)
        return [(key(active), value(active)) for key, value in zip(self.keys, self.values, strict=True)]


def _fold_condition(block: AttentionBlock, projection: nn.Linear) -> nn.Linear:
    """`projection` after the linear half of `kv_mapper`, as one layer."""
    mapper = block.kv_mapper[1]
    return _linear(projection.weight @ mapper.weight, projection.bias + projection.weight @ mapper.bias)


class PriorText(nn.Module):
    """hidden_states [b, n, c_cond] -> keys, values [b, L, n, c], L being the prior's attention blocks in order."""

    def __init__(self, prior: StageC) -> None:
        super().__init__()
        self.cond_mapper = prior.cond_mapper
        self.projections = TextKeysValues(attention_blocks(prior))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        pairs = self.projections(self.cond_mapper(hidden_states))
        return torch.stack([keys for keys, _ in pairs], dim=1), torch.stack([values for _, values in pairs], dim=1)


class Prior(nn.Module):
    """x [b, 16, h, w], r [b], keys and values [b, L, n, c] -> noise, the shape of x."""

    def __init__(self, prior: StageC) -> None:
        super().__init__()
        self.c_r = prior.config.c_r
        self.projection = prior.projection
        self.blocks = nn.ModuleList(_inference_block(block, None) for block in prior.blocks)
        self.out = prior.out

    def forward(self, x: Tensor, r: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        r_embed = timestep_embedding(r, self.c_r)
        hidden = to_channels_last(self.projection(x))
        turn = 0
        for block in self.blocks:
            if isinstance(block, Attention):
                hidden = block(hidden, keys[:, turn], values[:, turn])
                turn += 1
            elif isinstance(block, Timestep):
                hidden = block(hidden, r_embed)
            else:
                hidden = block(hidden)
        a, b = halves(self.out(to_channels_first(hidden)), dim=1)
        return (x - a) / ((1 - b).abs() + 1e-5)


class DecoderText(nn.Module):
    """hidden_states [b, n, clip_embd] -> keys, values [b, n, c_i] of each attention block of Stage B, in order."""

    def __init__(self, decoder: StageB) -> None:
        super().__init__()
        self.clip_mapper, self.seq_norm = decoder.clip_mapper, decoder.seq_norm
        self.projections = TextKeysValues(attention_blocks(decoder))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        pairs = self.projections(self.seq_norm(self.clip_mapper(hidden_states)))
        return tuple(tensor for pair in pairs for tensor in pair)


class Decoder(nn.Module):
    """x [b, 4, H, W], r [b], effnet_k [b, 16, H_k, W_k] of each level that injects, keys_i, values_i [b, n, c_i] -> noise.

    The maps and the pairs follow x and r in order.
    """

    def __init__(self, decoder: StageB) -> None:
        super().__init__()
        config = decoder.config
        self.c_r = config.c_r
        self.injects = config.inject_effnet
        self.embedding = decoder.embedding
        levels = range(len(config.c_hidden))
        mappers = [mapper if isinstance(mapper, nn.Conv2d) else None for mapper in decoder.effnet_mappers]
        self.down_blocks = nn.ModuleList(
            _inference_level(blocks, mapper)
            for blocks, mapper in zip(decoder.down_blocks, mappers[: len(levels)], strict=True)
        )
        self.up_blocks = nn.ModuleList(
            _inference_level(blocks, mapper)
            for blocks, mapper in zip(decoder.up_blocks, mappers[len(levels) :], strict=True)
        )
        self.clf = decoder.clf

    def forward(self, x: Tensor, r: Tensor, *conditions: Tensor) -> Tensor:
        r_embed = timestep_embedding(r, self.c_r)
        injected = sum(self.injects)
        maps = iter(to_channels_last(effnet) for effnet in conditions[:injected])
        embeddings = [next(maps) if inject else None for inject in self.injects]
        text = iter(zip(conditions[injected::2], conditions[injected + 1 :: 2], strict=True))

        hidden = to_channels_last(self.embedding(x))
        shortcuts: list[Tensor] = []
        for blocks, embedding in zip(self.down_blocks, embeddings, strict=True):
            hidden = _run(blocks, hidden, r_embed, None, embedding, text)
            shortcuts.append(hidden)
        for turn, (blocks, embedding) in enumerate(zip(self.up_blocks, reversed(embeddings), strict=True)):
            shortcut = shortcuts[-1 - turn] if turn > 0 else None
            hidden = _run(blocks, hidden, r_embed, shortcut, embedding, text)

        a, b = halves(self.clf(to_channels_first(hidden)), dim=1)
        return (x - a) / (b.sigmoid() * (1 - 2 * VARIANCE_FLOOR) + VARIANCE_FLOOR)


class VqganDecoder(nn.Module):
    """latents [b, 4, H, W], times scale_factor -> image [b, 3, 4H, 4W], not clamped."""

    def __init__(self, vqgan: StageA) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList(
            Mixing(block) if isinstance(block, MixingBlock) else _Spatial(block) for block in vqgan.up_blocks
        )
        self.out_block = vqgan.out_block

    def forward(self, latents: Tensor) -> Tensor:
        hidden = to_channels_last(latents)
        for block in self.up_blocks:
            hidden = block(hidden)
        image: Tensor = self.out_block(to_channels_first(hidden))
        return image


class Mixing(nn.Module):
    """A `MixingBlock` over [batch, height, width, channels]."""

    def __init__(self, block: MixingBlock) -> None:
        super().__init__()
        self.norm, self.depthwise, self.channelwise = block.norm1, block.depthwise, block.channelwise
        scale1, shift1, self.weight1, scale2, shift2, self.weight2 = block.gammas.tolist()
        self.scale1, self.shift1, self.scale2, self.shift2 = 1 + scale1, shift1, 1 + scale2, shift2

    def forward(self, x: Tensor) -> Tensor:
        spatial = self.norm(x) * self.scale1 + self.shift1
        x = x + to_channels_last(self.depthwise(to_channels_first(spatial))) * self.weight1
        out: Tensor = x + self.channelwise(self.norm(x) * self.scale2 + self.shift2) * self.weight2
        return out


class _Spatial(nn.Module):
    """A module of [batch, channels, height, width] maps, over [batch, height, width, channels]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return to_channels_last(self.module(to_channels_first(x)))


def attention_blocks(model: nn.Module) -> list[AttentionBlock]:
    """The attention blocks of Stage B or C in order of execution."""
    return [module for module in model.modules() if isinstance(module, AttentionBlock)]


def _inference_level(blocks: nn.Module, mapper: nn.Conv2d | None) -> nn.ModuleList:
    return nn.ModuleList(_inference_block(block, mapper) for block in blocks.children())


def _inference_block(block: nn.Module, mapper: nn.Conv2d | None) -> nn.Module:
    if isinstance(block, ResidualBlock):
        return Residual(block, mapper)
    if isinstance(block, AttentionBlock):
        return Attention(block)
    if isinstance(block, TimestepBlock):
        return Timestep(block)
    return _Spatial(block)


def _run(
    blocks: nn.ModuleList,
    x: Tensor,
    r_embed: Tensor,
    shortcut: Tensor | None,
    embedding: Tensor | None,
    text: Iterator[tuple[Tensor, Tensor]],
) -> Tensor:
    """Through one level of Stage B. The shortcut goes to the first block, if that is residual."""
    for index, block in enumerate(blocks):
        if isinstance(block, Residual):
            joined = (shortcut if index == 0 else None, embedding)
            x = block(x, *(part for part in joined if part is not None))
        elif isinstance(block, Attention):
            x = block(x, *next(text))
        elif isinstance(block, Timestep):
            x = block(x, r_embed)
        else:
            x = block(x)
    return x
