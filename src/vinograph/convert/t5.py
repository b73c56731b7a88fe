"""T5's encoder: ids to hidden states, of texts of any length.

Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (arXiv 1910.10683),
section 2.1, in its version 1.1, whose feed-forward layers are gated (arXiv 2002.05202). Parameters have the names of
transformers' `T5EncoderModel`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.layers import Embedding, Linear
from vinograph.convert.network_config import check_kinds

_GATED = "gated-gelu"
# Added where a token must not attend: exp of it is 0 in f32, and f16 and bf16 can hold it.
_MASKED = -30_000.0


@dataclass(frozen=True)
class T5Config:
    """The keys of the encoder's config.json that matter, with transformers' defaults.

    Attributes:
        d_model: width of the hidden states.
        d_kv: width of an attention head; all heads together may be wider than the hidden states.
        d_ff: width within the feed-forward layers.
        relative_attention_num_buckets: how many distances between tokens are told apart, both directions together.
        relative_attention_max_distance: from here on they are all the same.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"

    def __post_init__(self) -> None:
        if self.feed_forward_proj != _GATED:
            raise ValueError(f"feed_forward_proj is {self.feed_forward_proj!r}; Vinograph computes {_GATED!r} alone")
        if self.relative_attention_num_buckets < 4 or self.relative_attention_num_buckets % 4:
            raise ValueError(
                f"relative_attention_num_buckets is {self.relative_attention_num_buckets}; multiples of 4 are computed"
            )
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 4:
            raise ValueError(
                f"relative_attention_max_distance is {self.relative_attention_max_distance}, which is too small for "
                f"{self.relative_attention_num_buckets} buckets"
            )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> T5Config:
        """Of a config.json, whose other keys (dropout, generation, the decoder's) don't change what is computed.

        Raises:
            ValueError: a value that isn't computed here.
        """
        given = {key: mapping[key] for key in cls.__dataclass_fields__ if key in mapping}
        check_kinds(cls, given)
        return cls(**given)


class T5Encoder(nn.Module):
    """The last hidden states of token ids. See :meth:`forward`."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = Embedding(config.vocab_size, config.d_model)
        self.encoder = _Stack(config)

    @classmethod
    def from_config(cls, mapping: Mapping[str, Any]) -> T5Encoder:
        """The model that a config.json describes. Raises what :meth:`T5Config.from_mapping` does."""
        return cls(T5Config.from_mapping(mapping))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Ids and mask [b, n] int64 -> [b, n, d_model].

        A token attends to all that have a 1 in the mask, of which each text needs at least one. Where a text's real
        tokens come first, their hidden states don't depend on how many follow that are masked.
        """
        visible = (attention_mask != 0)[:, None, None, :]
        out: Tensor = self.encoder(self.shared(input_ids), torch.where(visible, 0.0, _MASKED))
        return out


class RmsNorm(nn.Module):
    """x over the root of its mean square (arXiv 1910.07467), times a weight for each channel; in the type of x."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def distance_buckets(count: int, longest: int) -> list[int]:
    """The bucket of each distance from -longest to longest, key minus query, where there are ``count`` of them.

    Half of them are for keys after the query. Of each half, the first half is for one distance each, and the rest share
    those up to ``longest`` on a logarithmic scale. They are worked out here, by the operations of T5's own code and in
    its precision: at distances where the logarithm is a whole number, another rounding gives the neighbouring bucket.
    """
    half, exact = count // 2, count // 4
    distances = torch.arange(-longest, longest + 1, device="cpu")
    away = distances.abs()
    scaled = torch.log(away.float() / exact) / math.log(longest / exact) * (half - exact)
    far = (exact + scaled.clamp(min=0).to(torch.int64)).clamp(max=half - 1)
    buckets: list[int] = (torch.where(away < exact, away, far) + half * (distances > 0)).tolist()
    return buckets


class _Stack(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.longest = config.relative_attention_max_distance
        buckets = distance_buckets(config.relative_attention_num_buckets, self.longest)
        # Where it is has to be said: a model is built without memory for what its checkpoint holds.
        self.register_buffer("buckets", torch.tensor(buckets, device="cpu"), persistent=False)
        self.block = nn.ModuleList(_Block(config, first=index == 0) for index in range(config.num_layers))
        self.final_layer_norm = RmsNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        bias = self._position_bias(x.shape[1]) + mask
        for block in self.block:
            x = block(x, bias)
        out: Tensor = self.final_layer_norm(x)
        return out

    def _position_bias(self, count: int) -> Tensor:
        """What the distance between two of ``count`` tokens adds to their score [1, heads, count, count].

        All layers use the first one's.
        """
        table = self.get_submodule("block.0.layer.0.SelfAttention.relative_attention_bias")
        positions = torch.arange(count)
        distances = (positions[None, :] - positions[:, None]).clamp(-self.longest, self.longest)
        buckets = self.get_buffer("buckets")[distances + self.longest]
        bias: Tensor = table(buckets).permute(2, 0, 1)[None]
        return bias


class _Block(nn.Module):
    def __init__(self, config: T5Config, first: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_AttentionLayer(config, first), _FeedForwardLayer(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = self.layer[1](self.layer[0](x, bias))
        return out


class _AttentionLayer(nn.Module):
    def __init__(self, config: T5Config, first: bool) -> None:
        super().__init__()
        self.SelfAttention = _Attention(config, first)
        self.layer_norm = RmsNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = x + self.SelfAttention(self.layer_norm(x), bias)
        return out


class _Attention(nn.Module):
    """Products of queries and keys are not scaled: the weights are."""

    def __init__(self, config: T5Config, first: bool) -> None:
        super().__init__()
        self.split = (config.num_heads, config.d_kv)
        width = config.num_heads * config.d_kv
        self.q, self.k, self.v = (Linear(config.d_model, width, bias=False) for _ in range(3))
        self.o = Linear(width, config.d_model, bias=False)
        if first:
            self.relative_attention_bias = Embedding(config.relative_attention_num_buckets, config.num_heads)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], *self.split).transpose(1, 2)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        queries, keys, values = (self._split(layer(x)) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=1.0)
        out: Tensor = self.o(attended.transpose(1, 2).flatten(2))
        return out


class _FeedForwardLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = _GatedPerceptron(config)
        self.layer_norm = RmsNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.DenseReluDense(self.layer_norm(x))
        return out


class _GatedPerceptron(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0, self.wi_1 = (Linear(config.d_model, config.d_ff, bias=False) for _ in range(2))
        self.wo = Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))
        return out
