"""The toy's networks as OpenVINO graphs: a table of tokens, and two convolutions that the text shifts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openvino import opset13 as opset

from vinograph.networks.config import read_config
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import conv2d, embedding, linear, reshape, tanh
from vinograph.networks.values import Value


@dataclass(frozen=True)
class TableConfig:
    """The table's config.json."""

    vocab_size: int
    hidden_size: int
    max_position_embeddings: int

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TableConfig:
        """Read it. Raises ValueError where it makes no sense."""
        return read_config(cls, mapping, {}, ())


@dataclass(frozen=True)
class SmootherConfig:
    """The smoother's config.json."""

    channels: int
    hidden_channels: int
    text_width: int
    sample_size: int

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> SmootherConfig:
        """Read it. Raises ValueError where it makes no sense."""
        return read_config(cls, mapping, {}, ())


def text_table(config: TableConfig, weights: Weights) -> Network:
    """``input_ids`` [b, n] -> ``embedding`` [b, width], the mean of the tokens' rows."""

    def compute(input_ids: Value) -> Value:
        rows = embedding(input_ids, weights["tokens"], config.vocab_size, config.hidden_size)
        return Value(opset.reduce_mean(rows.output, opset.constant([1])))

    width = config.hidden_size
    ports = Ports({"input_ids": Port(("b", "n"), "i64")}, {"embedding": Port(("b", width))})
    return build(weights, ports, compute)


def smoother(config: SmootherConfig, weights: Weights) -> Network:
    """``sample``, ``timestep`` [b] from 0 to 1 and ``text`` [b, width] -> ``out_sample``, smoother and more coloured."""

    def compute(sample: Value, timestep: Value, text: Value) -> Value:
        shift = linear(text, weights["text"], config.hidden_channels) + reshape(timestep, (-1, 1)) * 0.1
        x = conv2d(sample, weights["first"], config.hidden_channels, 5, padding=2)
        x = tanh(x + reshape(shift, (0, config.hidden_channels, 1, 1)))
        return conv2d(x, weights["last"], config.channels, 5, padding=2)

    latents = Port(("b", config.channels, "h", "w"))
    inputs = {"sample": latents, "timestep": Port(("b",)), "text": Port(("b", config.text_width))}
    return build(weights, Ports(inputs, {"out_sample": latents}), compute)
