"""CLIP's text encoder: ids and mask to the last hidden states.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020), section 2.4.
Parameters have the names of transformers' `CLIPTextModel`, without the leading `text_model.` of older files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Added where a token must not attend: exp of it is 0 in f32, and f16 and bf16 can hold it.
_MASKED = -30_000.0

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"gelu": F.gelu, "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x)}
)


@dataclass(frozen=True)
class ClipConfig:
    """The keys of the text encoder's config.json that matter, with transformers' defaults."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.hidden_act not in _ACTIVATIONS:
            raise ValueError(f"hidden_act is {self.hidden_act!r}; known are {', '.join(_ACTIVATIONS)}")
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} does not divide hidden_size {self.hidden_size}"
            )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> ClipConfig:
        """Of a config.json, whose other keys (dropout, generation, …) don't change what is computed."""
        return cls(**{key: mapping[key] for key in cls.__dataclass_fields__ if key in mapping})


class ClipTextEncoder(nn.Module):
    """The last hidden states of token ids.

    The mask must be 1 at the first token. A token attends to those before it that aren't masked.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[b, n] int64, n at most max_position_embeddings -> [b, n, hidden_size]."""
        positions = torch.arange(input_ids.shape[1])
        earlier = positions[None, :] <= positions[:, None]
        visible = earlier[None, None] & (attention_mask != 0)[:, None, None, :]
        bias = torch.where(visible, 0.0, _MASKED)
        hidden = self.embeddings(input_ids, positions)
        out: Tensor = self.final_layer_norm(self.encoder(hidden, bias))
        return out


class _Embeddings(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        out: Tensor = self.token_embedding(input_ids) + self.position_embedding(positions)
        return out


class _Encoder(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, bias)
        return x


class _Layer(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config.hidden_size, config.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = _Perceptron(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), bias)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.split = (heads, width // heads)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], *self.split).transpose(1, 2)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        queries, keys, values = (self._split(layer(x)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class _Perceptron(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out
