"""PixArt's transformer: from noisy latents, time and text to the prediction that a sampler takes.

Chen et al., PixArt-α: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image
Synthesis (arXiv 2310.00426), section 2.3; the 1024 pixel model's conditions on the picture's size
are in its appendix. Weights have the names of diffusers' PixArtTransformer2DModel.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from vinograph.families.pixart.network_config import TransformerConfig
from vinograph.networks.embeddings import sinusoidal_embedding, timestep_embedding
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import (
    arange_like,
    attention,
    concat,
    conv2d,
    dynamic_size,
    gelu,
    linear,
    merge_heads,
    normalise,
    reshape,
    reshape_like,
    silu,
    split,
    split_heads,
    transpose,
)
from vinograph.networks.values import Value, constant
from vinograph.runtime.precise import mark_precise

IGNORED = r"caption_projection\.y_embedding|pos_embed\.pos_embed"
"""Tensors of published checkpoints that aren't used.

They are the embedding of no text, which replaced some texts in training, and the table of
positions, which the graph computes.
"""

_SINUSOIDS = 256
_OUT_EPS = 1e-6
# What diffusers adds to the scores of a text's masked tokens.
_MASKED = -10_000.0


def pixart(config: TransformerConfig, weights: Weights) -> Network:
    """The transformer's graph; latents and text are of any size.

    Inputs are ``sample``, latents whose height and width are multiples of the patch's;
    ``timestep``, 0 to 1000; ``encoder_hidden_states``, the text; and ``encoder_attention_mask``, 1
    for the text's real tokens and 0 for the others. Models with size conditions also take
    ``resolution``, the picture's height and width in pixels, and ``aspect_ratio``, its height over
    its width. The last channels of ``out_sample`` are the learned variance, where there is one.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """
    inputs = {
        "sample": Port(("b", 4, "h", "w")),
        "timestep": Port(("b",)),
        "encoder_hidden_states": Port(("b", "n", config.text_width)),
        "encoder_attention_mask": Port(("b", "n"), "i64"),
    }
    if config.size_conditions:
        inputs |= {"resolution": Port(("b", 2)), "aspect_ratio": Port(("b", 1))}
    outputs = {"out_sample": Port(("b", config.channels, "h", "w"))}
    return build(weights, Ports(inputs, outputs), _Transformer(config, weights))


class _Transformer:
    """The transformer as a function of its inputs."""

    def __init__(self, config: TransformerConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights

    def __call__(
        self,
        sample: Value,
        timestep: Value,
        encoder_hidden_states: Value,
        encoder_attention_mask: Value,
        resolution: Value | None = None,
        aspect_ratio: Value | None = None,
    ) -> Value:
        config, weights = self.config, self.weights
        time = self._conditions(timestep, resolution, aspect_ratio)
        modulation = reshape(linear(silu(time), weights["adaln_single"]["linear"], 6 * config.width), (0, 6, -1))
        text = self._project_text(encoder_hidden_states)
        mask = reshape(_mask(encoder_attention_mask), (0, 1, 1, -1))
        patches = self._patches(sample)
        x = reshape(patches, (0, -1, config.width))
        for layer in range(config.num_layers):
            x = self._block(x, weights["transformer_blocks"][layer], text, mask, modulation)
        table = weights.matrix("scale_shift_table", (2, config.width), (1, 2, config.width))
        shift, scale = split(table + reshape(time, (0, 1, -1)), 2, axis=1)
        x = _modulate(normalise(x, -1, _OUT_EPS), shift, scale)
        x = linear(reshape_like(x, patches), weights["proj_out"], config.patch_size**2 * config.channels)
        return self._joined(x)

    def _conditions(self, timestep: Value, resolution: Value | None, aspect_ratio: Value | None) -> Value:
        """Embedding [b, width] of the time and, for models that take it, of the picture's size."""
        weights, width = self.weights["adaln_single"]["emb"], self.config.width
        time = timestep_embedding(sinusoidal_embedding(timestep, _SINUSOIDS), weights["timestep_embedder"], width)
        if resolution is None or aspect_ratio is None:
            return time
        sides = timestep_embedding(
            sinusoidal_embedding(resolution, _SINUSOIDS), weights["resolution_embedder"], width // 3
        )
        aspect = timestep_embedding(
            sinusoidal_embedding(aspect_ratio, _SINUSOIDS), weights["aspect_ratio_embedder"], width // 3
        )
        return time + concat([reshape(sides, (-1, 2 * (width // 3))), aspect], axis=1)

    def _project_text(self, text: Value) -> Value:
        """Project the text from [b, n, text_width] to [b, n, width]."""
        weights, width = self.weights["caption_projection"], self.config.width
        return linear(gelu(linear(text, weights["linear_1"], width), approximate=True), weights["linear_2"], width)

    def _patches(self, sample: Value) -> Value:
        """Patches [b, rows, columns, width] of latents [b, 4, h, w], with their positions embedded.

        Sines and cosines of a patch's column are the first half of what is added, those of its row
        the second half (arXiv 2010.11929, section 3.1).
        """
        config, width = self.config, self.config.width
        weights, patch = self.weights["pos_embed"]["proj"], config.patch_size
        patches = conv2d(sample, weights, width, patch, stride=patch)
        columns = _padded(self._along(patches, axis=3), 0, width // 2)
        rows = _padded(self._along(patches, axis=2), width // 2, 0)
        return transpose(patches, (0, 2, 3, 1)) + (columns + reshape(rows, (-1, 1, width)))

    def _along(self, patches: Value, axis: int) -> Value:
        """Sines and cosines [count, width / 2] of the positions along an axis, in full precision.

        A picture of any size and shape spans the same positions as those that the model was trained
        on.
        """
        config = self.config
        index, count = _precise_f32(arange_like(patches, axis)), _precise_f32(dynamic_size(patches, axis))
        ratio = count / (config.sample_size // config.patch_size)
        at = index / ratio
        scaled = at / config.scale
        for value in (ratio, at, scaled):
            mark_precise(value.node)
        return sinusoidal_embedding(scaled, config.width // 2, cosines_first=False)

    def _block(self, x: Value, weights: Weights, text: Value, mask: Value, modulation: Value) -> Value:
        """Modulated self-attention, attention to the text, and a modulated perceptron.

        x [b, patches, width], text [b, n, width], mask [b, 1, 1, n], modulation [b, 6, width].
        """
        config, width = self.config, self.config.width
        table = weights.matrix("scale_shift_table", (6, width), (1, 6, width))
        shift, scale, gate, shift_2, scale_2, gate_2 = split(table + modulation, 6, axis=1)
        normed = _modulate(normalise(x, -1, config.norm_eps), shift, scale)
        x = x + gate * self._attend(normed, normed, weights["attn1"])
        x = x + self._attend(x, text, weights["attn2"], mask)
        normed = _modulate(normalise(x, -1, config.norm_eps), shift_2, scale_2)
        return x + gate_2 * _feed_forward(normed, weights["ff"]["net"])

    def _attend(self, x: Value, other: Value, weights: Weights, mask: Value | None = None) -> Value:
        """Attention of x [b, m, width] to ``other`` [b, n, width], with ``mask`` as a bias."""
        width, count, bias = self.config.width, self.config.num_attention_heads, self.config.attention_bias
        queries = linear(x, weights["to_q"], width, bias=bias)
        keys, values = (linear(other, weights[name], width, bias=bias) for name in ("to_k", "to_v"))
        attended = attention(split_heads(queries, count), split_heads(keys, count), split_heads(values, count), mask)
        return linear(merge_heads(attended), weights["to_out"][0], width)

    def _joined(self, patches: Value) -> Value:
        """Join patches [b, rows, columns, patch² · channels] to a map [b, channels, h, w]."""
        channels_first = transpose(patches, (0, 3, 1, 2))
        return Value(opset.depth_to_space(channels_first.output, "blocks_first", self.config.patch_size))


def _modulate(x: Value, shift: Value, scale: Value) -> Value:
    """x [b, n, width] scaled by 1 + ``scale`` and moved by ``shift``, both [b, 1, width]."""
    return x * (1 + scale) + shift


def _feed_forward(x: Value, weights: Weights) -> Value:
    """A perceptron, four times as wide within. Its layer 1 is dropout in training."""
    width = x.size(-1)
    return linear(gelu(linear(x, weights[0]["proj"], 4 * width), approximate=True), weights[2], width)


def _mask(attended: Value) -> Value:
    """Bias of the attention scores: 0 where ``attended`` [b, n] isn't 0, and very low elsewhere."""
    real = opset.not_equal(attended.output, opset.constant(0, ov.Type.i64))
    return Value(opset.select(real, constant(0.0).output, constant(_MASKED).output))


def _padded(x: Value, before: int, after: int) -> Value:
    """x [n, width] with so many zeros before and after each row."""
    begins, ends = opset.constant([0, before], ov.Type.i64), opset.constant([0, after], ov.Type.i64)
    return Value(opset.pad(x.output, begins, ends, "constant", opset.constant(np.float32(0))))


def _precise_f32(x: Value) -> Value:
    """Integers as f32, also where the rest is computed in half precision."""
    converted = Value(opset.convert(x.output, "f32"))
    mark_precise(converted.node)
    return converted
