"""SDXL's UNet: noisy latents, time, text and sizes -> the prediction that a sampler wants.

Podell et al., SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis (arXiv 2307.01952), section
2; the guidance that is distilled into latent-consistency models comes as in arXiv 2310.04378, section 4.3. Parameters
have the names of diffusers' `UNet2DConditionModel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.attention import Attention
from vinograph.convert.embeddings import TimeEmbedding, sinusoids
from vinograph.convert.layers import Conv2d, GroupNorm, Linear
from vinograph.convert.network_config import broadcast
from vinograph.convert.residual import Downsample, ResidualBlock, Upsample
from vinograph.convert.unet_config import DOWN_TEXT, MIDDLE_TEXT, UP_TEXT, Layers, UNetConfig

_TRANSFORMER_NORM_EPS = 1e-6


class UNet(nn.Module):
    """The prediction for noisy latents of any height and width. See :meth:`forward`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, levels = config.block_out_channels, len(config.block_out_channels)
        time_width = config.time_embedding_dim or 4 * widths[0]
        layers = broadcast("layers_per_block", config.layers_per_block, levels)
        depths: tuple[Layers, ...] = broadcast(
            "transformer_layers_per_block", config.transformer_layers_per_block, levels
        )
        up_depths = config.reverse_transformer_layers_per_block or depths[::-1]

        self.conv_in = Conv2d(4, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], time_width, config.time_cond_proj_dim)
        self.add_embedding = TimeEmbedding(config.projection_class_embeddings_input_dim, time_width)
        self.down_blocks = nn.ModuleList(
            _DownBlock(
                _Level(config, time_width, config.heads[level], depths[level] if kind == DOWN_TEXT else None),
                widths[max(level - 1, 0)],
                widths[level],
                layers[level],
                halve=level < levels - 1,
            )
            for level, kind in enumerate(config.down_block_types)
        )
        if config.mid_block_type is not None:
            depth = depths[-1] if config.mid_block_type == MIDDLE_TEXT else None
            self.mid_block: nn.Module | None = _MiddleBlock(
                _Level(config, time_width, config.heads[-1], depth), widths[-1]
            )
        else:
            self.mid_block = None
        # The finest level's block comes last; what it joins is what the way down left, the last first.
        left = [widths[0]]
        for level in range(levels):
            left += [widths[level]] * (layers[level] + (level < levels - 1))
        self.up_blocks = nn.ModuleList()
        below = widths[-1]
        for turn, kind in enumerate(config.up_block_types):
            level = levels - 1 - turn
            joined = [left.pop() for _ in range(layers[level] + 1)]
            settings = _Level(config, time_width, config.heads[level], up_depths[turn] if kind == UP_TEXT else None)
            self.up_blocks.append(_UpBlock(settings, below, widths[level], joined, double=level > 0))
            below = widths[level]
        self.conv_norm_out = GroupNorm(config.norm_num_groups, widths[0], config.norm_eps)
        self.conv_out = Conv2d(widths[0], 4, 3, padding=1)

    @classmethod
    def from_config(cls, mapping: Mapping[str, Any]) -> UNet:
        """The model that a config.json describes. Raises what :meth:`UNetConfig.from_mapping` does."""
        return cls(UNetConfig.from_mapping(mapping))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor,
        time_ids: Tensor,
        timestep_cond: Tensor | None = None,
    ) -> Tensor:
        """The network's prediction (noise or velocity, as it was trained), of the shape of ``sample``.

        Args:
            sample: latents [b, 4, h, w], scaled as the sampler asks.
            timestep: [b], 0 to 1000.
            encoder_hidden_states: the text [b, n, text_width].
            text_embeds: the pooled text [b, pooled_width].
            time_ids: original size, top left corner of the crop, target size, in pixels [b, 6].
            timestep_cond: the guidance scale's embedding [b, time_cond_proj_dim], of models that take it.
        """
        config = self.config
        sizes = self._sinusoids(time_ids.flatten(), config.addition_time_embed_dim).reshape(time_ids.shape[0], -1)
        time = self.time_embedding(self._sinusoids(timestep, config.block_out_channels[0]), timestep_cond)
        time = time + self.add_embedding(torch.cat([text_embeds, sizes], dim=-1))

        x = self.conv_in(sample)
        left = [x]
        for block in self.down_blocks:
            x = block(x, time, encoder_hidden_states, left)
        if self.mid_block is not None:
            x = self.mid_block(x, time, encoder_hidden_states)
        for block in self.up_blocks:
            x = block(x, time, encoder_hidden_states, left)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out

    def _sinusoids(self, values: Tensor, width: int) -> Tensor:
        config = self.config
        return sinusoids(values, width, config.freq_shift, config.flip_sin_to_cos)


@dataclass(frozen=True)
class _Level:
    """What the blocks of a level have in common. ``depth`` is None where they hold no transformers."""

    config: UNetConfig
    time_width: int
    heads: int
    depth: Layers | None

    def residual(self, c_in: int, c_out: int) -> ResidualBlock:
        return ResidualBlock(c_in, c_out, self.config.norm_num_groups, self.config.norm_eps, self.time_width)

    def transformers(self, width: int, count: int) -> nn.ModuleList | None:
        if self.depth is None:
            return None
        depths = broadcast("transformer_layers_per_block", self.depth, count)
        return nn.ModuleList(Transformer(self.config, width, self.heads, depth) for depth in depths)


class _DownBlock(nn.Module):
    """Residual blocks, each with a transformer after it, then half the size. What each leaves goes to ``left``."""

    def __init__(self, level: _Level, c_in: int, width: int, layers: int, halve: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(level.residual(c_in if index == 0 else width, width) for index in range(layers))
        self.attentions = level.transformers(width, layers)
        self.downsamplers = nn.ModuleList([Downsample(width, padding=1)]) if halve else None

    def forward(self, x: Tensor, time: Tensor, text: Tensor, left: list[Tensor]) -> Tensor:
        for index, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if self.attentions is not None:
                x = self.attentions[index](x, text)
            left.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            left.append(x)
        return x


class _MiddleBlock(nn.Module):
    """A residual block, a transformer, a residual block; the first alone where there is no transformer."""

    def __init__(self, level: _Level, width: int) -> None:
        super().__init__()
        self.attentions = level.transformers(width, 1)
        self.resnets = nn.ModuleList(level.residual(width, width) for _ in range(1 if self.attentions is None else 2))

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        x = self.resnets[0](x, time)
        if self.attentions is not None:
            x = self.resnets[1](self.attentions[0](x, text), time)
        return x


class _UpBlock(nn.Module):
    """Residual blocks, each of which joins what the way down left, then the size of what is joined next.

    That is twice the size, or one less where the way down rounded up.
    """

    def __init__(self, level: _Level, c_in: int, width: int, joined: Sequence[int], double: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            level.residual((c_in if index == 0 else width) + skip, width) for index, skip in enumerate(joined)
        )
        self.attentions = level.transformers(width, len(joined))
        self.upsamplers = nn.ModuleList([Upsample(width)]) if double else None

    def forward(self, x: Tensor, time: Tensor, text: Tensor, left: list[Tensor]) -> Tensor:
        for index, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, left.pop()], dim=1), time)
            if self.attentions is not None:
                x = self.attentions[index](x, text)
        if self.upsamplers is not None:
            x = self.upsamplers[0](x, like=left[-1])
        return x


class Transformer(nn.Module):
    """Every position of a feature map [b, c, h, w] attends to all others and to the text [b, n, text_width]."""

    def __init__(self, config: UNetConfig, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.linear = config.use_linear_projection
        self.norm = GroupNorm(config.norm_num_groups, width, _TRANSFORMER_NORM_EPS)
        self.proj_in = Linear(width, width) if self.linear else Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(width, heads, config.text_width) for _ in range(depth))
        self.proj_out = Linear(width, width) if self.linear else Conv2d(width, width, 1)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """See the class; the result has the shape of x."""
        batch, channels, height, width = x.shape
        hidden = self.norm(x)
        if not self.linear:
            hidden = self.proj_in(hidden)
        hidden = hidden.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        if self.linear:
            hidden = self.proj_in(hidden)
        for block in self.transformer_blocks:
            hidden = block(hidden, text)
        if self.linear:
            hidden = self.proj_out(hidden)
        hidden = hidden.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        out: Tensor = x + (hidden if self.linear else self.proj_out(hidden))
        return out


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text, and a gated perceptron (GEGLU, arXiv 2002.05202), each after a norm."""

    def __init__(self, width: int, heads: int, text_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, heads, width)
        self.attn2 = Attention(width, heads, text_width)
        self.ff = _FeedForward(width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """[b, positions, width] -> the same."""
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), text)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class _GatedLinear(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = value * F.gelu(gate)
        return out


class _FeedForward(nn.Module):
    """Four times as wide within. The layer between the two is dropout while training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_GatedLinear(width, 4 * width), nn.Identity(), Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out
