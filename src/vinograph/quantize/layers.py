"""Quantizing one segment with NNCF, and which layers are left out of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from vinograph.families.recipes import Layer, Recipe

# NNCF reports each use to OpenVINO's makers, unless this says that it is being tested.
os.environ.setdefault("NNCF_CI", "1")

import nncf
from nncf.quantization.advanced_parameters import (
    AdvancedCompressionParameters,
    AdvancedQuantizationParameters,
    AdvancedSmoothQuantParameters,
    GroupSizeFallbackMode,
    OverflowFix,
    QuantizationParameters,
)
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

nncf.set_log_level(logging.ERROR)

# Depthwise convolutions stay as they are. They are a hundredth of the work, and NNCF would give
# each of their channels a range of its own, along the wrong axis where a transpose comes before.
_CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData")
_GROUPED = ("GroupConvolution", "GroupConvolutionBackpropData")
_ATTENTION = "ScaledDotProductAttention"
_INT4_GROUP = 256
_INT4_TABLE_GROUP = 32
_SMALLEST_GROUP = 16

Load = Callable[[int], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class IgnoredLayers:
    """The layers that are left out, by name.

    Attributes:
        weights: layers whose weights are not compressed.
        activations: layers whose activations are not quantized. These include those of ``weights``.
    """

    weights: frozenset[str]
    activations: frozenset[str]


def ignored_layers(model: ov.Model, recipe: Recipe, mode: str) -> IgnoredLayers:
    """The layers of a graph that are left out of quantization.

    Tables that are indexed by other things than token ids are small and decide much, such as T5's
    of distances. Layers that don't depend on the latents decide what is drawn and are little work,
    such as the text's keys and values, and the timestep embedding.
    """
    nodes = model.get_ordered_ops()
    tables = {node.get_friendly_name() for node in nodes if node.get_type_name() == "Gather" and not _reads_ids(node)}
    if mode == "weights" or not recipe.activations:
        return IgnoredLayers(frozenset(tables), frozenset())
    from_latents = _computed_from_latents(nodes)
    layers = [node for node in nodes if node.get_type_name() in (*_CONVOLUTIONS, *_GROUPED, "MatMul")]
    wanted = [
        node
        for node in layers
        if node.get_friendly_name() in from_latents
        and (node.get_type_name() in _CONVOLUTIONS or (mode == "full" and _has_weights(node)))
    ]
    chosen = {node.get_friendly_name() for node in wanted}
    named = {name for layer in recipe.ignored for name in _names_of(layer, wanted)}
    attention = {
        node.get_friendly_name()
        for node in nodes
        if node.get_type_name() == _ATTENTION
        and not (recipe.scores and mode == "full" and _is_self_attention(node, from_latents))
    }
    activations = (
        {node.get_friendly_name() for node in layers if node.get_friendly_name() not in chosen} | named | attention
    )
    return IgnoredLayers(frozenset(tables | named), frozenset(activations | tables))


def _names_of(layer: Layer, layers: Sequence[ov.Node]) -> list[str]:
    """The name of the first or last of ``layers`` that has the recipe's kind, if any has."""
    fitting = [node for node in layers if layer.kind in _kinds(node)]
    return [fitting[-1 if layer.last else 0].get_friendly_name()] if fitting else []


def _kinds(node: ov.Node) -> tuple[str, ...]:
    """A recipe's names for the kind of a layer."""
    kind: str = node.get_type_name()
    is_pointwise = kind == "Convolution" and tuple(node.input_value(1).get_shape()[2:]) == (1, 1)
    return (kind, "pointwise") if is_pointwise else (kind,)


def _has_weights(node: ov.Node) -> bool:
    """Whether the second factor of a product is a stored weight."""
    source = node.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape"):
        source = source.input_value(0).get_node()
    return bool(source.get_type_name() == "Constant")


def _is_self_attention(attention: ov.Node, from_latents: Collection[str]) -> bool:
    """Whether keys and queries are both computed from the latents."""
    return all(attention.input_value(each).get_node().get_friendly_name() in from_latents for each in (0, 1))


def _reads_ids(gather: ov.Node) -> bool:
    """Whether a lookup is by ids: its indices are an input of the graph."""
    node = gather.input_value(1).get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Parameter")


def _computed_from_latents(nodes: Sequence[ov.Node]) -> set[str]:
    """The names of the nodes that are computed from an input [b, c, h, w]; shapes don't count."""
    found: set[str] = set()
    for node in nodes:
        name = node.get_friendly_name()
        if node.get_type_name() == "Parameter":
            found |= {name} if len(node.get_output_partial_shape(0)) == 4 else set()
        elif any(value.get_node().get_friendly_name() in found for value in node.input_values()):
            found |= {name} if node.get_type_name() != "ShapeOf" else set()
    return found


def quantize_activations(model: ov.Model, ignored: IgnoredLayers, samples: Sequence[int], load: Load) -> ov.Model:
    """``model`` with int8 activations and weights, except in ``ignored`` layers.

    ``load`` gives the inputs of a sample, by name.
    """
    inside = {node.get_friendly_name() for node in model.get_ops()}
    wanted = [
        node
        for node in model.get_ops()
        if node.get_type_name() in (*_CONVOLUTIONS, "MatMul", _ATTENTION)
        and node.get_friendly_name() not in ignored.activations
    ]
    if not wanted:
        return model
    quantized: ov.Model = nncf.quantize(
        model,
        nncf.Dataset(list(samples), load),
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=sorted(ignored.activations & inside)),
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE,
            # NNCF's default, the mean over samples, would clip the few steps that have the largest
            # values.
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            activations_quantization_params=QuantizationParameters(per_channel=False),
            smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        ),
    )
    return quantized


def compress_weights(model: ov.Model, weights: str, ignored: IgnoredLayers) -> ov.Model:
    """``model`` with its f16 and f32 weights in int8 or int4, except in ``ignored`` layers."""
    inside = {node.get_friendly_name() for node in model.get_ops()}
    names = sorted(ignored.weights & inside)
    if weights == "int4":
        tables = {node.get_friendly_name() for node in model.get_ops() if node.get_type_name() == "Gather"}
        model = _int4(model, _INT4_GROUP, sorted({*names, *tables}))
        if tables:
            model = _int4(model, _INT4_TABLE_GROUP, names)
        return model
    return nncf.compress_weights(
        model, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=nncf.IgnoredScope(names=names)
    )


def _int4(model: ov.Model, group: int, names: Sequence[str]) -> ov.Model:
    return nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        ratio=1.0,
        group_size=group,
        all_layers=True,
        ignored_scope=nncf.IgnoredScope(names=list(names)),
        advanced_parameters=AdvancedCompressionParameters(
            group_size_fallback_mode=GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=_SMALLEST_GROUP
        ),
    )
