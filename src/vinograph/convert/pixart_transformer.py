"""PixArt's transformer: noisy latents, time and text -> the prediction that a sampler wants.

Chen et al., PixArt-α: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis (arXiv
2310.00426), section 2.3; the 1024 pixel model's conditions on the picture's size are in its appendix. Parameters have
the names of diffusers' `PixArtTransformer2DModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.attention import Attention
from vinograph.convert.embeddings import TimeEmbedding, sinusoids
from vinograph.convert.layers import Conv2d, Linear
from vinograph.convert.pixart_config import PixArtConfig

_SINUSOIDS = 256
_OUT_EPS = 1e-6
# What diffusers adds to the scores of a text's masked tokens.
_MASKED = -10_000.0


class PixArtTransformer(nn.Module):
    """The prediction for noisy latents of any height and width. See :meth:`forward`."""

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_size
        self.pos_embed = _Patches(config)
        self.adaln_single = _SharedModulation(width, config.size_conditions)
        self.caption_projection = _TextProjection(config.text_width, width)
        self.transformer_blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm_out = nn.LayerNorm(width, _OUT_EPS, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.zeros(2, width))
        self.proj_out = Linear(width, patch * patch * config.channels)

    @classmethod
    def from_config(cls, mapping: Mapping[str, Any]) -> PixArtTransformer:
        """The model that a config.json describes. Raises what :meth:`PixArtConfig.from_mapping` does."""
        return cls(PixArtConfig.from_mapping(mapping))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        resolution: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
    ) -> Tensor:
        """The network's prediction [b, channels, h, w]; what it has learned of the variance comes last.

        Args:
            sample: latents [b, 4, h, w], h and w multiples of the patch's size.
            timestep: [b], 0 to 1000.
            encoder_hidden_states: the text [b, n, text_width].
            encoder_attention_mask: 1 for the text's real tokens, 0 for the others [b, n], int64.
            resolution: the picture's height and width in pixels [b, 2], of models that take it.
            aspect_ratio: its height over its width [b, 1], of models that take it.
        """
        modulation, time = self.adaln_single(timestep, resolution, aspect_ratio)
        text = self.caption_projection(encoder_hidden_states)
        bias = torch.where(encoder_attention_mask != 0, 0.0, _MASKED)[:, None, None, :]
        patches = self.pos_embed.proj(sample)
        height, width = patches.shape[2:]
        x = patches.flatten(2).transpose(1, 2) + self.pos_embed.positions(height, width)
        for block in self.transformer_blocks:
            x = block(x, text, bias, modulation)
        shift, scale = (self.scale_shift_table[None] + time[:, None]).chunk(2, dim=1)
        x = self.proj_out(self.norm_out(x) * (1 + scale) + shift)
        patch, channels = self.config.patch_size, self.config.channels
        x = x.reshape(-1, height, width, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
        out: Tensor = x.reshape(-1, channels, height * patch, width * patch)
        return out


class _Patches(nn.Module):
    """Latents as patches, and where those are (arXiv 2010.11929, section 3.1)."""

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        self.width, self.scale = config.width, config.scale
        self.base = config.sample_size // config.patch_size
        self.proj = Conv2d(4, config.width, config.patch_size, stride=config.patch_size)

    def positions(self, height: int, width: int) -> Tensor:
        """Sines and cosines of each patch's column, then of its row [1, height * width, channels].

        A picture of any size and shape spans the same positions as those that the model was trained on.
        """
        shape = (height, width, self.width // 2)
        columns, rows = self._along(width)[None].expand(shape), self._along(height)[:, None].expand(shape)
        return torch.cat([columns, rows], dim=-1).reshape(1, -1, self.width)

    def _along(self, count: int) -> Tensor:
        """Of ``count`` patches in a row [count, channels / 2]."""
        at = torch.arange(count, dtype=torch.float32) / (count / self.base) / self.scale
        return sinusoids(at, self.width // 2, cosines_first=False)


class _SharedModulation(nn.Module):
    """Shifts, scales and gates that all blocks share, made of the time and, where it is told, the picture's size."""

    def __init__(self, width: int, size_conditions: bool) -> None:
        super().__init__()
        self.emb = _Conditions(width, size_conditions)
        self.linear = Linear(width, 6 * width)

    def forward(
        self, timestep: Tensor, resolution: Tensor | None, aspect_ratio: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """[b, 6, width], and what they are made of [b, width]."""
        embedded = self.emb(timestep, resolution, aspect_ratio)
        modulation: Tensor = self.linear(F.silu(embedded))
        return modulation.reshape(embedded.shape[0], 6, -1), embedded


class _Conditions(nn.Module):
    def __init__(self, width: int, size_conditions: bool) -> None:
        super().__init__()
        self.timestep_embedder = TimeEmbedding(_SINUSOIDS, width)
        if size_conditions:
            self.resolution_embedder = TimeEmbedding(_SINUSOIDS, width // 3)
            self.aspect_ratio_embedder = TimeEmbedding(_SINUSOIDS, width // 3)

    def forward(self, timestep: Tensor, resolution: Tensor | None, aspect_ratio: Tensor | None) -> Tensor:
        embedded: Tensor = self.timestep_embedder(sinusoids(timestep, _SINUSOIDS))
        if resolution is None or aspect_ratio is None:
            return embedded
        sides = self.resolution_embedder(sinusoids(resolution.flatten(), _SINUSOIDS))
        aspect = self.aspect_ratio_embedder(sinusoids(aspect_ratio.flatten(), _SINUSOIDS))
        return embedded + torch.cat([sides.reshape(timestep.shape[0], -1), aspect], dim=1)


class _TextProjection(nn.Module):
    def __init__(self, c_in: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = Linear(c_in, width), Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.gelu(self.linear_1(x), approximate="tanh"))
        return out


class _Block(nn.Module):
    """Self-attention, attention to the text and a perceptron; the first and the last are modulated."""

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        width, heads, bias = config.width, config.num_attention_heads, config.attention_bias
        self.norm1, self.norm2 = (nn.LayerNorm(width, config.norm_eps, elementwise_affine=False) for _ in range(2))
        self.attn1, self.attn2 = (Attention(width, heads, width, bias) for _ in range(2))
        self.ff = _FeedForward(width)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, width))

    def forward(self, x: Tensor, text: Tensor, bias: Tensor, modulation: Tensor) -> Tensor:
        """x [b, patches, width], text [b, n, width], bias [b, 1, 1, n], modulation [b, 6, width]."""
        own = (self.scale_shift_table[None] + modulation).chunk(6, dim=1)
        shift, scale, gate, shift_2, scale_2, gate_2 = own
        normed = self.norm1(x) * (1 + scale) + shift
        x = x + gate * self.attn1(normed, normed)
        x = x + self.attn2(x, text, bias)
        out: Tensor = x + gate_2 * self.ff(self.norm2(x) * (1 + scale_2) + shift_2)
        return out


class _GeluLinear(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class _FeedForward(nn.Module):
    """Four times as wide within. The layer between the two is dropout while training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_GeluLinear(width, 4 * width), nn.Identity(), Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out
