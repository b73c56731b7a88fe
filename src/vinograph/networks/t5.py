"""T5's encoder: token ids -> hidden states, of texts of any length.

Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer
(arXiv 1910.10683), section 2.1, in its version 1.1, whose feed-forward layers are gated (arXiv
2002.05202). Weights have the names of transformers' T5EncoderModel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.networks.config import check_kinds
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import (
    arange_like,
    attention,
    attention_bias,
    embedding,
    gelu,
    linear,
    merge_heads,
    reshape,
    split_heads,
    transpose,
    visible_keys,
)
from vinograph.networks.values import Value, constant

# The table of token embeddings has two names, of which a file has either or both.
_TIED = "encoder.embed_tokens.weight"

IGNORED = r"encoder\.embed_tokens\.weight|decoder\..*|lm_head\.weight"
"""Tensors that the encoder doesn't use: the table's second copy, and a whole model's decoder."""

_IDS = Port(("b", "n"), "i64")


_GATED = "gated-gelu"


@dataclass(frozen=True)
class T5Config:
    """The keys of the encoder's config.json that matter, with transformers' defaults.

    Attributes:
        d_model: width of the hidden states.
        d_kv: width of an attention head; all heads together may be wider than the hidden states.
        d_ff: width within the feed-forward layers.
        relative_attention_num_buckets: the number of buckets for distances between tokens, of both
            directions together.
        relative_attention_max_distance: the distance from which on all are in one bucket.
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
        """From a config.json, whose other keys don't change what is computed.

        Raises:
            ValueError: naming a key whose value isn't computed here.
        """
        given = {key: mapping[key] for key in cls.__dataclass_fields__ if key in mapping}
        check_kinds(cls, given)
        return cls(**given)


def t5_encoder(config: T5Config, weights: Weights) -> Network:
    """T5's encoder, which gives the last hidden states.

    Inputs: ``input_ids`` and ``attention_mask`` [b, n]. A token attends to all tokens whose mask is
    not 0, and each text needs at least one. The hidden states of a text's tokens don't depend on
    how many masked ones follow. Output: ``hidden_states`` [b, n, d_model].

    With published weights, feed-forward layers exceed the range of half precision.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """
    eps, encoder = config.layer_norm_epsilon, weights["encoder"]
    has_second_name_alone = "shared.weight" not in weights and _TIED in weights
    table = encoder["embed_tokens"] if has_second_name_alone else weights["shared"]

    def last_hidden_states(input_ids: Value, attention_mask: Value) -> Value:
        x = embedding(input_ids, table, config.vocab_size, config.d_model)
        first = encoder["block"][0]["layer"][0]["SelfAttention"]
        bias = _position_bias(input_ids, first["relative_attention_bias"], config) + attention_bias(
            visible_keys(attention_mask)
        )
        for index in range(config.num_layers):
            block = encoder["block"][index]["layer"]
            x = x + _attend(_rms_norm(x, block[0]["layer_norm"], eps), bias, block[0]["SelfAttention"], config)
            x = x + _feed_forward(_rms_norm(x, block[1]["layer_norm"], eps), block[1]["DenseReluDense"], config.d_ff)
        return _rms_norm(x, encoder["final_layer_norm"], eps)

    inputs = {"input_ids": _IDS, "attention_mask": _IDS}
    outputs = {"hidden_states": Port(("b", "n", config.d_model))}
    return build(weights, Ports(inputs, outputs), last_hidden_states, f16_safe=False)


def distance_buckets(count: int, longest: int) -> NDArray[np.int64]:
    """The bucket of each distance, key minus query, from -longest to longest: [2 · longest + 1].

    Half of the ``count`` buckets are for keys after the query. Of each half, the first half has one
    distance each. The rest share the distances up to ``longest`` on a logarithmic scale. They are
    computed in the precision of T5's own code: where the logarithm is a whole number, another
    rounding gives the neighbouring bucket.
    """
    half, exact = count // 2, count // 4
    distances = np.arange(-longest, longest + 1)
    away = np.abs(distances)
    ratios = np.maximum(away, exact).astype(np.float32) / np.float32(exact)
    # NumPy's logarithms in f32 differ from machine to machine. Those in f64, rounded, don't.
    logarithms = np.log(ratios.astype(np.float64)).astype(np.float32)
    steps = logarithms / np.float32(math.log(longest / exact)) * np.float32(half - exact)
    far = np.minimum(exact + steps.astype(np.int64), half - 1)
    buckets: NDArray[np.int64] = np.where(away < exact, away, far) + half * (distances > 0)
    return buckets


def _position_bias(ids: Value, weights: Weights, config: T5Config) -> Value:
    """What the distance between two tokens adds to their score in all layers: [heads, n, n]."""
    count, longest = config.relative_attention_num_buckets, config.relative_attention_max_distance
    position_ids = arange_like(ids, 1)
    distances = reshape(position_ids, (1, -1)) - reshape(position_ids, (-1, 1))
    index = Value(opset.clamp(distances.output, -longest, longest)) + constant(longest, np.int64)
    table = constant(distance_buckets(count, longest), np.int64)
    buckets = Value(opset.gather(table.output, index.output, opset.constant(0)))
    return transpose(embedding(buckets, weights, count, config.num_heads), (2, 0, 1))


def _attend(x: Value, bias: Value, weights: Weights, config: T5Config) -> Value:
    """Self-attention of x [b, n, d_model]. Scores aren't scaled, since T5's weights are."""
    width = config.num_heads * config.d_kv
    queries, keys, values = (
        split_heads(linear(x, weights[name], width, bias=False), config.num_heads) for name in ("q", "k", "v")
    )
    return linear(merge_heads(attention(queries, keys, values, bias, scale=1.0)), weights["o"], x.size(-1), bias=False)


def _feed_forward(x: Value, weights: Weights, inner: int) -> Value:
    """(gelu(x W₀) · x W₁) W (Shazeer, arXiv 2002.05202): x [b, n, d_model] -> the same."""
    gate = gelu(linear(x, weights["wi_0"], inner, bias=False), approximate=True)
    return linear(gate * linear(x, weights["wi_1"], inner, bias=False), weights["wo"], x.size(-1), bias=False)


def _rms_norm(x: Value, weights: Weights, eps: float) -> Value:
    """RMS normalization (arXiv 1910.07467): x / √(mean(x²) + eps), times a weight per channel."""
    squares = opset.power(x.output, constant(2.0).output)
    mean = Value(opset.reduce_mean(squares, opset.constant([-1]), keep_dims=True)) + eps
    inverse = constant(1.0) / Value(opset.sqrt(mean.output))
    width = x.size(-1)
    return x * inverse * weights.vector("weight", (width,), (1, 1, width))
