"""CLIP's text encoder: token ids -> hidden states.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision (arXiv
2103.00020), section 2.4. Weights have the names of transformers' CLIPTextModel and
CLIPTextModelWithProjection, without the ``text_model.`` that most files put in front: see
:func:`network_name`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from openvino import opset13 as opset

from vinograph.networks.config import check_kinds
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import (
    arange_like,
    attention,
    attention_bias,
    concat,
    embedding,
    gelu,
    layer_norm,
    linear,
    merge_heads,
    reshape,
    split_heads,
    visible_keys,
)
from vinograph.networks.values import Value, constant
from vinograph.values import shown

IGNORED = r"embeddings\.position_ids|logit_scale|text_projection\.weight|visual_projection\.weight|vision_model\..*"
"""Tensors that hidden states don't depend on; the last two are of whole CLIP models."""

_PREFIX = "text_model."
_IDS = Port(("b", "n"), "i64")
# Configurations from before transformers 4.31 have this as eos_token_id, which ends no text.
_OLD_EOS = 2


def _quick_gelu(x: Value) -> Value:
    """x · sigmoid(1.702 x), which is near to GELU (arXiv 1606.08415, section 2)."""
    return Value(opset.swish(x.output, constant(1.702).output))


_ACTIVATIONS: Mapping[str, Callable[[Value], Value]] = MappingProxyType({"gelu": gelu, "quick_gelu": _quick_gelu})


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
        """From a config.json, whose other keys don't change what is computed.

        In that of a whole CLIP model, the text encoder's keys are under ``text_config``.

        Raises:
            ValueError: naming a key whose value makes no sense.
        """
        if "text_config" in mapping:
            mapping = _text_config(mapping)
        given = {key: mapping[key] for key in cls.__dataclass_fields__ if key in mapping}
        check_kinds(cls, given)
        return cls(**given)


def _text_config(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text encoder's configuration within that of a whole CLIP model.

    The projection's width may stand in the whole model's alone.

    Raises:
        ValueError: it is no object, or there are settings outside it, too.
    """
    own = mapping["text_config"]
    if not isinstance(own, Mapping):
        raise ValueError(f"text_config is {shown(own)}, where the text encoder's settings should be")
    if "hidden_size" in mapping:
        raise ValueError("text_config is there beside hidden_size, so that it isn't clear which of both to follow")
    shared = {key: mapping[key] for key in ("projection_dim",) if key in mapping}
    return {**shared, **own}


def network_name(name: str) -> str:
    """The network's name for a tensor of a file."""
    return name.removeprefix(_PREFIX)


def clip_text_encoder(config: ClipConfig, weights: Weights) -> Network:
    """CLIP's text encoder that gives the last hidden states, as Würstchen takes them.

    Inputs: ``input_ids`` and ``attention_mask`` [b, n], n at most max_position_embeddings. A token
    attends to itself and those before it, except where the mask is 0. It must not be 0 at the first
    token. Output: ``hidden_states`` [b, n, hidden_size].

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def last_hidden_states(input_ids: Value, attention_mask: Value) -> Value:
        position_ids = arange_like(input_ids, 1)
        visible = opset.logical_and(_causal(position_ids).output, visible_keys(attention_mask).output)
        x, mask = _embed(input_ids, position_ids, weights["embeddings"], config), attention_bias(Value(visible))
        for index in range(config.num_hidden_layers):
            x = _layer(x, mask, weights["encoder"]["layers"][index], config)
        return layer_norm(x, weights["final_layer_norm"], config.layer_norm_eps)

    inputs = {"input_ids": _IDS, "attention_mask": _IDS}
    states = Port(("b", "n", config.hidden_size))
    return build(weights, Ports(inputs, {"hidden_states": states}), last_hidden_states)


def clip_hidden_states(config: ClipConfig, weights: Weights, *, projects: bool) -> Network:
    """CLIP's text encoder that gives the input of every layer, as SDXL takes them.

    Input: ``input_ids`` [b, n], n at most max_position_embeddings. Nothing is masked: a token
    attends to itself and all before it, padding among them. Output: ``hidden_states`` [b,
    num_hidden_layers, n, hidden_size], of which the first are the embeddings. The last layer's
    output is not among them. With ``projects`` there is also ``text_embeds`` [b, projection_dim]:
    the last hidden state at the text's end, projected.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """
    layers = [weights["encoder"]["layers"][index] for index in range(config.num_hidden_layers)]

    def hidden_states(input_ids: Value) -> list[Value]:
        position_ids = arange_like(input_ids, 1)
        mask = attention_bias(_causal(position_ids))
        states = [_embed(input_ids, position_ids, weights["embeddings"], config)]
        for layer in layers[:-1]:
            states.append(_layer(states[-1], mask, layer, config))
        stacked = concat([reshape(each, (0, 1, -1, config.hidden_size)) for each in states], axis=1)
        if not projects:
            _check_last(weights, layers[-1], config)
            return [stacked]
        last = _layer(states[-1], mask, layers[-1], config)
        last = layer_norm(last, weights["final_layer_norm"], config.layer_norm_eps)
        end = _end_of_text(input_ids, position_ids, config)
        pooled = _picked(last, position_ids, end)
        return [stacked, linear(pooled, weights["text_projection"], config.projection_dim, bias=False)]

    return build(weights, hidden_states_ports(config, projects=projects), hidden_states)


def hidden_states_ports(config: ClipConfig, *, projects: bool) -> Ports:
    """The ports of :func:`clip_hidden_states`."""
    outputs = {"hidden_states": Port(("b", config.num_hidden_layers, "n", config.hidden_size))}
    if projects:
        outputs["text_embeds"] = Port(("b", config.projection_dim))
    return Ports({"input_ids": _IDS}, outputs)


def _causal(position_ids: Value) -> Value:
    """The causal mask, true where a key is not after the query: [n] -> boolean [n, n]."""
    queries, keys = reshape(position_ids, (-1, 1)), reshape(position_ids, (1, -1))
    return Value(opset.less_equal(keys.output, queries.output))


def _embed(ids: Value, position_ids: Value, weights: Weights, config: ClipConfig) -> Value:
    """The sum of the embeddings of tokens [b, n] and of positions [n]: [b, n, hidden_size]."""
    tokens = embedding(ids, weights["token_embedding"], config.vocab_size, config.hidden_size)
    count = config.max_position_embeddings
    return tokens + embedding(position_ids, weights["position_embedding"], count, config.hidden_size)


def _layer(x: Value, mask: Value, weights: Weights, config: ClipConfig) -> Value:
    """Self-attention and an MLP, each after a norm: x [b, n, hidden_size] -> the same."""
    normed = layer_norm(x, weights["layer_norm1"], config.layer_norm_eps)
    x = x + _attend(normed, mask, weights["self_attn"], config.num_attention_heads)
    normed = layer_norm(x, weights["layer_norm2"], config.layer_norm_eps)
    inner = _ACTIVATIONS[config.hidden_act](linear(normed, weights["mlp"]["fc1"], config.intermediate_size))
    return x + linear(inner, weights["mlp"]["fc2"], config.hidden_size)


def _attend(x: Value, mask: Value, weights: Weights, head_count: int) -> Value:
    width = x.size(-1)
    queries, keys, values = (
        split_heads(linear(x, weights[name], width), head_count) for name in ("q_proj", "k_proj", "v_proj")
    )
    return linear(merge_heads(attention(queries, keys, values, mask)), weights["out_proj"], width)


def _end_of_text(ids: Value, position_ids: Value, config: ClipConfig) -> Value:
    """The index [b] of the token that ends each text; 0 where none does, as in transformers.

    That is the first token whose id is ``eos_token_id``. Under older configurations it is the first
    token with the highest id.
    """
    end = constant(config.eos_token_id, np.int64)
    if config.eos_token_id == _OLD_EOS:
        end = Value(opset.reduce_max(ids.output, opset.constant([1]), keep_dims=True))
    none = constant(config.max_position_embeddings, np.int64)
    is_end = opset.equal(ids.output, end.output)
    candidates = opset.select(is_end, position_ids.output, none.output)
    return Value(opset.floor_mod(opset.reduce_min(candidates, opset.constant([1])), none.output))


def _picked(states: Value, position_ids: Value, index: Value) -> Value:
    """The state at each text's ``index`` [b]: states [b, n, c] -> [b, c].

    It is a masked sum instead of a batched gather, with which OpenVINO 2026.4 reads beyond its
    memory for one text of a fixed length.
    """
    found = opset.equal(position_ids.output, reshape(index, (-1, 1)).output)
    alone = opset.select(opset.unsqueeze(found, opset.constant([2])), states.output, constant(0).output)
    return Value(opset.reduce_sum(alone, opset.constant([1])))


def _check_last(weights: Weights, layer: Weights, config: ClipConfig) -> None:
    """Mark the last layer's tensors as used: files have them, but no output depends on them."""
    width, inner = config.hidden_size, config.intermediate_size
    layers = [(layer["self_attn"][f"{name}_proj"], width, width) for name in ("q", "k", "v", "out")]
    layers += [(layer["mlp"]["fc1"], inner, width), (layer["mlp"]["fc2"], width, inner)]
    for scope, c_out, c_in in layers:
        scope.mark_used("weight", (c_out, c_in))
        scope.mark_used("bias", (c_out,))
    for norm in (layer["layer_norm1"], layer["layer_norm2"], weights["final_layer_norm"]):
        norm.mark_used("weight", (width,))
        norm.mark_used("bias", (width,))
