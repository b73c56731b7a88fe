"""One segment, quantized by NNCF."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from vinograph.families.recipes import Layer, Recipe

# NNCF reports each use to OpenVINO's makers, unless told that it is being tested.
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

# Depthwise convolutions stay: they are a hundredth of the work, and NNCF would give each of their channels a range of
# its own, along the wrong axis where a transpose comes before.
_CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData")
_GROUPED = ("GroupConvolution", "GroupConvolutionBackpropData")
_ATTENTION = "ScaledDotProductAttention"
_INT4_GROUP = 256
_INT4_TABLE_GROUP = 32
_SMALLEST_GROUP = 16

Load = Callable[[int], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Kept:
    """Names of layers: ``whole`` ones stay as they are; of ``activations``, only the weights are compressed."""

    whole: frozenset[str]
    activations: frozenset[str]


def kept(model: ov.Model, recipe: Recipe, mode: str) -> Kept:
    """What stays out of a graph.

    Tables that other things than ids are looked up in are small, and decide much, such as T5's of distances. What isn't
    computed from the latents, such as keys and values of the text and all that is told the time, is little work, and
    decides what is drawn.
    """
    nodes = model.get_ordered_ops()
    whole = {node.get_friendly_name() for node in nodes if node.get_type_name() == "Gather" and not _reads_ids(node)}
    if mode == "weights" or not recipe.activations:
        return Kept(frozenset(whole), frozenset())
    moving = _of_latents(nodes)
    layers = [node for node in nodes if node.get_type_name() in (*_CONVOLUTIONS, *_GROUPED, "MatMul")]
    wanted = [
        node
        for node in layers
        if node.get_friendly_name() in moving
        and (node.get_type_name() in _CONVOLUTIONS or (mode == "full" and _has_weights(node)))
    ]
    chosen = {node.get_friendly_name() for node in wanted}
    named = {name for layer in recipe.ignored for name in _named(layer, wanted)}
    attention = {
        node.get_friendly_name()
        for node in nodes
        if node.get_type_name() == _ATTENTION and not (recipe.scores and mode == "full" and _is_among(node, moving))
    }
    activations = (
        {node.get_friendly_name() for node in layers if node.get_friendly_name() not in chosen} | named | attention
    )
    return Kept(frozenset(whole | named), frozenset(activations | whole))


def _named(layer: Layer, layers: Sequence[ov.Node]) -> list[str]:
    fitting = [node for node in layers if layer.kind in _kinds(node)]
    return [fitting[-1 if layer.last else 0].get_friendly_name()] if fitting else []


def _kinds(node: ov.Node) -> tuple[str, ...]:
    kind: str = node.get_type_name()
    is_pointwise = kind == "Convolution" and tuple(node.input_value(1).get_shape()[2:]) == (1, 1)
    return (kind, "pointwise") if is_pointwise else (kind,)


def _has_weights(node: ov.Node) -> bool:
    source = node.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape"):
        source = source.input_value(0).get_node()
    return bool(source.get_type_name() == "Constant")


def _is_among(attention: ov.Node, moving: Collection[str]) -> bool:
    """Whether the keys are computed from the latents, as the queries are."""
    return all(attention.input_value(each).get_node().get_friendly_name() in moving for each in (0, 1))


def _reads_ids(gather: ov.Node) -> bool:
    """Whether what is looked up is an input of the graph."""
    node = gather.input_value(1).get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Parameter")


def _of_latents(nodes: Sequence[ov.Node]) -> set[str]:
    """The names of the nodes that are computed from an input of channels, height and width."""
    found: set[str] = set()
    for node in nodes:
        name = node.get_friendly_name()
        if node.get_type_name() == "Parameter":
            found |= {name} if len(node.get_output_partial_shape(0)) == 4 else set()
        elif any(value.get_node().get_friendly_name() in found for value in node.input_values()):
            found |= {name} if node.get_type_name() != "ShapeOf" else set()
    return found


def with_activations(model: ov.Model, out: Kept, samples: Sequence[int], load: Load) -> ov.Model:
    """``model`` with int8 activations and weights, but for what is kept ``out``."""
    inside = {node.get_friendly_name() for node in model.get_ops()}
    wanted = [
        node
        for node in model.get_ops()
        if node.get_type_name() in (*_CONVOLUTIONS, "MatMul", _ATTENTION)
        and node.get_friendly_name() not in out.activations
    ]
    if not wanted:
        return model
    quantized: ov.Model = nncf.quantize(
        model,
        nncf.Dataset(list(samples), load),
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=sorted(out.activations & inside)),
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE,
            # NNCF's default, the mean over samples, cuts off what the few steps with the largest values need.
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            activations_quantization_params=QuantizationParameters(per_channel=False),
            smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        ),
    )
    return quantized


def with_small_weights(model: ov.Model, weights: str, out: Kept) -> ov.Model:
    """``model`` with those weights in int8 or int4 that are still in f16 or f32, but for what is kept ``out``."""
    inside = {node.get_friendly_name() for node in model.get_ops()}
    names = sorted(out.whole & inside)
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
