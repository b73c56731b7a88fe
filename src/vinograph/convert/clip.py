"""CLIP's text encoder: ids to hidden states.

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

from vinograph.convert.layers import Embedding, Linear
from vinograph.convert.network_config import check_kinds

# Added where a token must not attend: exp of it is 0 in f32, and f16 and bf16 can hold it.
_MASKED = -30_000.0
# What configurations say that were written before transformers 4.31.
_OLD_EOS = 2

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
    projection_dim: int = 512
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        if self.hidden_act not in _ACTIVATIONS:
            raise ValueError(f"hidden_act is {self.hidden_act!r}; known are {', '.join(_ACTIVATIONS)}")
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} does not divide hidden_size {self.hidden_size}"
            )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> ClipConfig:
        """Of a config.json, whose other keys (dropout, generation, …) don't change what is computed.

        Raises:
            ValueError: naming a key whose value makes no sense.
        """
        if "text_config" in mapping:
            raise ValueError("text_config is there: it is the configuration of a whole CLIP, not of its text encoder")
        given = {key: mapping[key] for key in cls.__dataclass_fields__ if key in mapping}
        check_kinds(cls, given)
        return cls(**given)


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


class ClipHiddenStates(nn.Module):
    """The hidden states that every layer is given, and with ``projects`` the pooled and projected text.

    Texts are not masked: a token attends to all before it, padding among them.
    """

    def __init__(self, config: ClipConfig, projects: bool) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.text_projection = Linear(config.hidden_size, config.projection_dim, bias=False) if projects else None

    def forward(self, input_ids: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """[b, n] int64, n at most max_position_embeddings -> [b, layers, n, hidden_size] and [b, projection_dim].

        The first hidden states are the embeddings; those that the last layer gives are not among them.
        """
        positions = torch.arange(input_ids.shape[1])
        bias = torch.where(positions[None, :] <= positions[:, None], 0.0, _MASKED)[None, None]
        hidden = self.embeddings(input_ids, positions)
        states = [hidden]
        for layer in self.encoder.layers[:-1]:
            hidden = layer(hidden, bias)
            states.append(hidden)
        stacked = torch.stack(states, dim=1)
        if self.text_projection is None:
            return stacked
        last = self.final_layer_norm(self.encoder.layers[-1](hidden, bias))
        return stacked, self.text_projection(self._at_end(last, input_ids))

    def _at_end(self, states: Tensor, input_ids: Tensor) -> Tensor:
        """States [b, n, d] at each text's end -> [b, d]; of a text without an end at its start, as transformers does.

        The end is the first token that is ``eos_token_id``. Older configurations have 2 there, which ends no text: then
        it is the first with the highest id.
        """
        old = self.config.eos_token_id == _OLD_EOS
        end = input_ids.amax(dim=1, keepdim=True) if old else self.config.eos_token_id
        count = input_ids.shape[1]
        first = torch.where(input_ids == end, torch.arange(count), count).amin(dim=1) % count
        index = first[:, None, None].expand(-1, 1, states.shape[2])
        return states.gather(1, index)[:, 0]


class _Embeddings(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size)

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
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (Linear(width, width) for _ in range(4))

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
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out
