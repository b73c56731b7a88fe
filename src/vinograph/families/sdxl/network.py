"""SDXL's UNet: from noisy latents, time, text and sizes to the prediction that a sampler takes.

Podell et al., SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis (arXiv
2307.01952), section 2. The embedding of a guidance scale, which latent consistency models take, is
that of arXiv 2310.04378, section 4.3. Weights have the names of diffusers' UNet2DConditionModel.
"""

from __future__ import annotations

from collections.abc import Iterator

from vinograph.families.sdxl.network_config import (
    DOWN_TEXT,
    LATENT_CHANNELS,
    MIDDLE_TEXT,
    UP_TEXT,
    UNetConfig,
    transformer_depths,
)
from vinograph.networks.embeddings import sinusoidal_embedding, timestep_embedding
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import (
    attention,
    concat,
    conv2d,
    gelu,
    group_norm,
    layer_norm,
    linear,
    merge_heads,
    reshape,
    reshape_like,
    silu,
    split,
    split_heads,
    transpose,
)
from vinograph.networks.residual import GroupNorm, downsample, residual_block, upsample_block
from vinograph.networks.values import Value

_TRANSFORMER_NORM_EPS = 1e-6


def unet(config: UNetConfig, weights: Weights) -> Network:
    """The UNet's graph; latents and text are of any size.

    Inputs: ``sample``, latents scaled as the sampler asks, in inpainting models followed by a mask and
    the latents of a masked picture; ``timestep``, 0 to 1000;
    ``encoder_hidden_states``, the text; ``text_embeds``, the pooled text; ``time_ids``, the
    original size, the crop's top left corner and the target size in pixels; ``timestep_cond``, the
    guidance scale's embedding, of models that take it.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """
    return build(weights, ports(config), _UNet(config, weights))


def ports(config: UNetConfig) -> Ports:
    """Inputs and outputs of :func:`unet`."""
    inputs = {
        "sample": Port(("b", config.in_channels, "h", "w")),
        "timestep": Port(("b",)),
        "encoder_hidden_states": Port(("b", "n", config.text_width)),
        "text_embeds": Port(("b", config.pooled_width)),
        "time_ids": Port(("b", 6)),
    }
    if config.time_cond_proj_dim is not None:
        inputs["timestep_cond"] = Port(("b", config.time_cond_proj_dim))
    return Ports(inputs, {"out_sample": Port(("b", LATENT_CHANNELS, "h", "w"))})


class _UNet:
    """The UNet as a function of its inputs."""

    def __init__(self, config: UNetConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.norm = GroupNorm(config.norm_num_groups, config.norm_eps)
        self.levels = len(config.block_out_channels)

    def __call__(
        self,
        sample: Value,
        timestep: Value,
        encoder_hidden_states: Value,
        text_embeds: Value,
        time_ids: Value,
        timestep_cond: Value | None = None,
    ) -> Value:
        time = silu(self._conditions(timestep, text_embeds, time_ids, timestep_cond))
        weights, text, widths = self.weights, encoder_hidden_states, self.config.block_out_channels
        skips = [conv2d(sample, weights["conv_in"], widths[0], 3, padding=1)]
        for level in range(self.levels):
            skips += self._down_block(skips[-1], level, time, text)
        x = self._middle_block(skips[-1], time, text)
        for turn in range(self.levels):
            x = self._up_block(x, turn, time, text, skips)
        x = silu(group_norm(x, weights["conv_norm_out"], self.norm.groups, self.norm.eps))
        return conv2d(x, weights["conv_out"], LATENT_CHANNELS, 3, padding=1)

    def _conditions(self, timestep: Value, pooled: Value, time_ids: Value, guidance: Value | None) -> Value:
        """Embedding [b, t] of time, guidance, pooled text and sizes."""
        config, weights = self.config, self.weights
        width = config.time_embedding_dim or 4 * config.block_out_channels[0]
        time = self._sinusoids(timestep, config.block_out_channels[0])
        sizes = self._sinusoids(time_ids, config.addition_time_embed_dim)
        sizes = reshape(sizes, (-1, 6 * config.addition_time_embed_dim))
        embedded = timestep_embedding(time, weights["time_embedding"], width, guidance)
        return embedded + timestep_embedding(concat([pooled, sizes], axis=-1), weights["add_embedding"], width)

    def _sinusoids(self, values: Value, width: int) -> Value:
        return sinusoidal_embedding(values, width, self.config.freq_shift, cosines_first=self.config.flip_sin_to_cos)

    def _down_block(self, x: Value, level: int, time: Value, text: Value) -> Iterator[Value]:
        """Yield the skips of a level: residual blocks with transformers, then half the size."""
        config, weights = self.config, self.weights["down_blocks"][level]
        width = config.block_out_channels[level]
        depths = transformer_depths(
            config.down_block_types[level] == DOWN_TEXT, config.depths[level], config.layers[level]
        )
        for layer, depth in enumerate(depths):
            x = residual_block(x, weights["resnets"][layer], width, self.norm, time)
            x = self._transformer(x, weights["attentions"][layer], text, config.heads[level], depth)
            yield x
        if level < self.levels - 1:
            yield downsample(x, weights["downsamplers"][0])

    def _middle_block(self, x: Value, time: Value, text: Value) -> Value:
        """A residual block, a transformer and a residual block, or the first one alone."""
        config, weights = self.config, self.weights["mid_block"]
        if config.mid_block_type is None:
            return x
        width = config.block_out_channels[-1]
        x = residual_block(x, weights["resnets"][0], width, self.norm, time)
        if config.mid_block_type != MIDDLE_TEXT:
            return x
        (depth,) = transformer_depths(True, config.depths[-1], 1)
        x = self._transformer(x, weights["attentions"][0], text, config.heads[-1], depth)
        return residual_block(x, weights["resnets"][1], width, self.norm, time)

    def _up_block(self, x: Value, turn: int, time: Value, text: Value, skips: list[Value]) -> Value:
        """Residual blocks, each of which takes a skip, then the size of the next skip."""
        config, weights = self.config, self.weights["up_blocks"][turn]
        level = self.levels - 1 - turn
        width, count = config.block_out_channels[level], config.layers[level] + 1
        depths = transformer_depths(config.up_block_types[turn] == UP_TEXT, config.up_depths[turn], count)
        for layer, depth in enumerate(depths):
            joined = concat([x, skips.pop()], axis=1)
            x = residual_block(joined, weights["resnets"][layer], width, self.norm, time)
            x = self._transformer(x, weights["attentions"][layer], text, config.heads[level], depth)
        return upsample_block(x, weights["upsamplers"][0], like=skips[-1]) if level > 0 else x

    def _transformer(self, x: Value, weights: Weights, text: Value, head_count: int, depth: int) -> Value:
        """Every position of x [b, c, h, w] attends to all others and to the text [b, n, width]."""
        if not depth:
            return x
        config, channels = self.config, x.size(1)
        hidden = group_norm(x, weights["norm"], config.norm_num_groups, _TRANSFORMER_NORM_EPS)
        if not config.use_linear_projection:
            hidden = conv2d(hidden, weights["proj_in"], channels, 1)
        last = transpose(hidden, (0, 2, 3, 1))
        hidden = reshape(last, (0, -1, channels))
        if config.use_linear_projection:
            hidden = linear(hidden, weights["proj_in"], channels)
        for block in range(depth):
            hidden = _transformer_block(hidden, weights["transformer_blocks"][block], text, head_count)
        if config.use_linear_projection:
            hidden = linear(hidden, weights["proj_out"], channels)
        hidden = transpose(reshape_like(hidden, last), (0, 3, 1, 2))
        if not config.use_linear_projection:
            hidden = conv2d(hidden, weights["proj_out"], channels, 1)
        return x + hidden


def _transformer_block(x: Value, weights: Weights, text: Value, head_count: int) -> Value:
    """Self-attention, attention to the text, and GEGLU (arXiv 2002.05202), each after a norm."""
    normed = layer_norm(x, weights["norm1"])
    x = x + _attend(normed, normed, weights["attn1"], head_count)
    x = x + _attend(layer_norm(x, weights["norm2"]), text, weights["attn2"], head_count)
    return x + _feed_forward(layer_norm(x, weights["norm3"]), weights["ff"]["net"])


def _attend(x: Value, other: Value, weights: Weights, head_count: int) -> Value:
    """Attention of x [b, m, width] to ``other`` [b, n, …]: [b, m, width]."""
    width = x.size(-1)
    queries = linear(x, weights["to_q"], width, bias=False)
    keys, values = (linear(other, weights[name], width, bias=False) for name in ("to_k", "to_v"))
    attended = attention(
        split_heads(queries, head_count), split_heads(keys, head_count), split_heads(values, head_count)
    )
    return linear(merge_heads(attended), weights["to_out"][0], width)


def _feed_forward(x: Value, weights: Weights) -> Value:
    """A gated perceptron, four times as wide within. Its layer 1 is dropout in training."""
    width = x.size(-1)
    value, gate = split(linear(x, weights[0]["proj"], 8 * width), 2, axis=-1)
    return linear(value * gelu(gate), weights[2], width)
