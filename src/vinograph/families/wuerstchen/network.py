"""Würstchen's stages as graphs, from text and noise to image embeddings, latents and pixels.

Pernias et al., Würstchen: An Efficient Architecture for Large-Scale Text-to-Image Diffusion Models
(arXiv 2306.00637). Stage C, the prior, and stage B, the decoder, have a graph of their own for the
text's part of their attentions' keys and values, which doesn't depend on the step. Stage A is
Paella's VQGAN (arXiv 2211.07292). Weights have the names of diffusers' WuerstchenPrior,
WuerstchenDiffNeXt and PaellaVQModel.

Each graph uses some of a checkpoint's tensors. The patterns that end in ``IGNORED`` match the whole
names of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.families.wuerstchen.network_blocks import (
    FIRST,
    NORM_EPS,
    Level,
    Mapper,
    Text,
    channel_norm,
    norm_2d,
    pointwise,
    text_keys_values,
    timestep_embedding,
)
from vinograph.families.wuerstchen.network_config import StageAConfig, StageBConfig, StageCConfig
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import (
    concat,
    conv2d,
    conv_transpose2d,
    gelu,
    linear,
    normalise,
    pixel_shuffle,
    pixel_unshuffle,
    reshape,
    sigmoid,
    split,
)
from vinograph.networks.values import Value, constant

_BLOCK = r"depthwise|channelwise\.[024]|mapper|attention\.to_q|attention\.to_out\.0"

PRIOR_TEXT_IGNORED = rf"(projection|out\.1|blocks\.\d+\.({_BLOCK}))\.\w+"
PRIOR_IGNORED = r"(cond_mapper\.[02]|blocks\.\d+\.kv_mapper\.1)\.\w+"
DECODER_TEXT_IGNORED = rf"(embedding\.1|clf\.1|effnet_mappers\.\d+|(down|up)_blocks\.\d+\.\d+\.(1|{_BLOCK}))\.\w+"
DECODER_IGNORED = r"(clip_mapper|(down|up)_blocks\.\d+\.\d+\.kv_mapper\.1)\.\w+"
VQGAN_DECODER_IGNORED = r"(in_block|down_blocks|vquantizer)\..+"

_LEAK = 0.2
_PRIOR_FLOOR = 1e-5
_VARIANCE_FLOOR = 1e-3


def prior_text(config: StageCConfig, weights: Weights) -> Network:
    """Keys and values [b, L, n, c] of the text for the prior's L attention blocks.

    They are computed from the text encoder's hidden states [b, n, c_cond].

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def compute(hidden_states: Value) -> list[Value]:
        mapper = weights["cond_mapper"]
        condition = _leaky_relu(linear(hidden_states, mapper[0], config.c))
        condition = linear(condition, mapper[2], config.c)
        blocks = ((weights["blocks"][3 * turn + 2], config.c) for turn in range(config.depth))
        pairs = [[reshape(part, (0, 1, -1, config.c)) for part in pair] for pair in text_keys_values(condition, blocks)]
        return [concat(parts, axis=1) for parts in zip(*pairs, strict=True)]

    text = Port(("b", config.depth, "n", config.c))
    inputs = {"hidden_states": Port(("b", "n", config.c_cond))}
    return build(weights, Ports(inputs, {"keys": text, "values": text}), compute)


def prior(config: StageCConfig, weights: Weights) -> Network:
    """Stage C: the noise in image embeddings x at the time r, from 0 to 1, which is pure noise.

    ``keys`` and ``values`` are those of :func:`prior_text`.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def compute(x: Value, r: Value, keys: Value, values: Value) -> Value:
        text = ((_slice(keys, turn), _slice(values, turn)) for turn in range(config.depth))
        hidden = conv2d(x, weights["projection"], config.c, 1)
        blocks = Level("CTA" * config.depth, weights["blocks"], config.nhead)
        hidden = blocks(hidden, timestep_embedding(r, config.c_r), text)
        a, b = split(conv2d(norm_2d(hidden), weights["out"][1], 2 * config.c_in, 1), 2, axis=1)
        return (x - a) / (_abs(1 - b) + _PRIOR_FLOOR)

    latents, text = Port(("b", config.c_in, "h", "w")), Port(("b", config.depth, "n", config.c))
    inputs = {"x": latents, "r": Port(("b",)), "keys": text, "values": text}
    return build(weights, Ports(inputs, {"noise": latents}), compute)


def attention_widths(config: StageBConfig) -> list[int]:
    """Widths of the decoder's attention blocks, in order of execution."""
    down = [
        width
        for width, kinds, count in zip(config.c_hidden, config.level_config, config.blocks, strict=True)
        for _ in range(kinds.count("A") * count)
    ]
    return [*down, *reversed(down)]


def effnet_levels(config: StageBConfig) -> list[int]:
    """Levels whose residual blocks take the image embedding, the finest being 0."""
    return [level for level, injects in enumerate(config.inject_effnet) if injects]


def decoder_text(config: StageBConfig, weights: Weights) -> Network:
    """Keys and values [b, n, c_i] of the text for the decoder's attention blocks.

    They are computed from the text encoder's hidden states [b, n, clip_embd]. A decoder without
    attention has none, and no such graph.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def compute(hidden_states: Value) -> list[Value]:
        condition = normalise(linear(hidden_states, weights["clip_mapper"], config.c_cond), -1, NORM_EPS)
        return [part for pair in text_keys_values(condition, _attentions(config, weights)) for part in pair]

    inputs = {"hidden_states": Port(("b", "n", config.clip_embd))}
    return build(weights, Ports(inputs, _text_ports(config)), compute)


def decoder(config: StageBConfig, weights: Weights) -> Network:
    """Stage B: the noise in VQGAN latents x at the time r, from 0 to 1, which is pure noise.

    ``effnet_k`` are the image embeddings on the grid of level k, ``keys_i`` and ``values_i`` those
    of :func:`decoder_text`. Height and width of x are multiples of patch_size · 2^(levels - 1).

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """
    latents = Port(("b", config.c_in, "H", "W"))
    maps = {f"effnet_{k}": Port(("b", config.effnet_embd, f"H_{k}", f"W_{k}")) for k in effnet_levels(config)}
    inputs = {"x": latents, "r": Port(("b",)), **maps, **_text_ports(config)}
    return build(weights, Ports(inputs, {"noise": latents}), _Decoder(config, weights), f16_safe=False)


class _Decoder:
    """Stage B as a function of its inputs: a U-Net whose levels are joined by shortcuts."""

    def __init__(self, config: StageBConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.levels = len(config.c_hidden)

    def __call__(self, x: Value, r: Value, **conditions: Value) -> Value:
        config, weights, widths = self.config, self.weights, self.config.c_hidden
        time = timestep_embedding(r, config.c_r)
        embeddings = [conditions.get(f"effnet_{level}") for level in range(self.levels)]
        count = len(attention_widths(config))
        text: Text = ((conditions[f"keys_{turn}"], conditions[f"values_{turn}"]) for turn in range(count))

        hidden = conv2d(pixel_unshuffle(x, config.patch_size), weights["embedding"][1], widths[0], 1)
        hidden = norm_2d(hidden)
        shortcuts: list[Value] = []
        for level in range(self.levels):
            scope = weights["down_blocks"][level]
            if level > 0:
                hidden = conv2d(norm_2d(hidden), scope[0][1], widths[level], 2, stride=2)
            hidden = self._level(level, scope, level, begin=min(level, 1))(hidden, time, text, embeddings[level])
            shortcuts.append(hidden)
        for turn, level in enumerate(reversed(range(self.levels))):
            scope, shortcut = weights["up_blocks"][turn], shortcuts[level] if turn > 0 else None
            blocks = self._level(level, scope, self.levels + turn)
            hidden = blocks(hidden, time, text, embeddings[level], shortcut)
            if level > 0:
                doubling = scope[len(blocks.kinds)][1]
                hidden = conv_transpose2d(norm_2d(hidden), doubling, widths[level - 1], 2, stride=2)

        channels = 2 * config.c_out * config.patch_size**2
        hidden = pixel_shuffle(conv2d(norm_2d(hidden), weights["clf"][1], channels, 1), config.patch_size)
        a, b = split(hidden, 2, axis=1)
        return (x - a) / (sigmoid(b) * (1 - 2 * _VARIANCE_FLOOR) + _VARIANCE_FLOOR)

    def _level(self, level: int, scope: Weights, mapper: int, begin: int = 0) -> Level:
        """The blocks of ``level`` on the way down or up, with the mapper of that number."""
        config = self.config
        kinds = config.level_config[level] * config.blocks[level]
        convolution = Mapper(self.weights["effnet_mappers"][mapper], config.effnet_embd, config.c_cond)
        injects = config.inject_effnet[level]
        return Level(kinds, scope, config.nhead[level], begin, config.kernel_size, convolution if injects else None)


def _attentions(config: StageBConfig, weights: Weights) -> Iterator[tuple[Weights, int]]:
    """The weights and the width of each attention block of the decoder, in order of execution."""
    levels = range(len(config.c_hidden))
    down = [(weights["down_blocks"][level], level, min(level, 1)) for level in levels]
    up = [(weights["up_blocks"][turn], level, 0) for turn, level in enumerate(reversed(levels))]
    for scope, level, begin in (*down, *up):
        for index, kind in enumerate(config.level_config[level] * config.blocks[level]):
            if kind == "A":
                yield scope[begin + index], config.c_hidden[level]


def _text_ports(config: StageBConfig) -> dict[str, Port]:
    return {
        f"{part}_{index}": Port(("b", "n", width))
        for index, width in enumerate(attention_widths(config))
        for part in ("keys", "values")
    }


def vqgan_decoder(config: StageAConfig, weights: Weights) -> Network:
    """Stage A's decoder: from latents times scale_factor to a picture in about [0, 1], not clamped.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def compute(latents: Value) -> Value:
        scope, width = weights["up_blocks"], config.embed_dim
        x = conv2d(latents, scope[0][0], width, 1)
        place = 1
        for level in range(config.levels):
            if level > 0:
                width //= 2
                x = conv_transpose2d(x, scope[place], width, 4, stride=2, padding=1)
                place += 1
            for _ in range(1 if level > 0 else config.bottleneck_blocks):
                x = _mixing_block(x, scope[place])
                place += 1
        factor = config.up_down_scale_factor
        return pixel_shuffle(conv2d(x, weights["out_block"][0], config.out_channels * factor**2, 1), factor)

    inputs = {"latents": Port(("b", config.latent_channels, "H", "W"))}
    return build(weights, Ports(inputs, {"image": Port(("b", config.out_channels, "height", "width"))}), compute)


def _gamma(weights: Weights, index: int) -> NDArray[np.float32]:
    gamma: NDArray[np.float32] = weights.values("gammas", (6,))[index]
    return gamma


def _mixing_block(x: Value, weights: Weights) -> Value:
    """Paella's residual block, with six learned scalars that weigh norms and branches."""
    width = x.size(1)
    weights.mark_used("gammas", (6,))
    scale1, shift1, weight1, scale2, shift2, weight2 = (
        weights.computed_vector(f"gammas.{index}", (1, 1, 1, 1), partial(_gamma, weights, index)) for index in range(6)
    )
    spatial = _replicated(channel_norm(x) * (1 + scale1) + shift1)
    x = x + conv2d(spatial, weights["depthwise"][1], width, 3, depthwise=True) * weight1
    layers = weights["channelwise"]
    hidden = gelu(pointwise(channel_norm(x) * (1 + scale2) + shift2, layers[0], 4 * width, FIRST))
    return x + pointwise(hidden, layers[2], width, FIRST) * weight2


def _replicated(x: Value) -> Value:
    """Repeat the border of x [b, c, h, w] around it: [b, c, h + 2, w + 2]."""
    sides, unused = opset.constant([0, 0, 1, 1]), opset.constant(np.float32(0))  # or OpenVINO adds one, unnumbered
    return Value(opset.pad(x.output, sides, sides, "edge", unused))


def _slice(text: Value, turn: int) -> Value:
    """Keys or values [b, n, c] of one block, out of [b, L, n, c] of all."""
    return Value(opset.gather(text.output, opset.constant(turn), opset.constant(1)))


def _leaky_relu(x: Value) -> Value:
    return Value(opset.prelu(x.output, constant([_LEAK]).output))


def _abs(x: Value) -> Value:
    return Value(opset.abs(x.output))
