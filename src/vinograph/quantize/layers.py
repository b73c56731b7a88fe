"""One segment, quantized by NNCF."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from vinograph.quantize.recipes import Layer, Recipe

# NNCF reports each use to OpenVINO's makers, unless told that it is being tested.
os.environ.setdefault("NNCF_CI", "1")

import nncf
from nncf.quantization.advanced_parameters import (
    AdvancedCompressionParameters,
    AdvancedQuantizationParameters,
    AdvancedSmoothQuantParameters,
    GroupSizeFallbackMode,
    OverflowFix,
)

nncf.set_log_level(logging.ERROR)

_CONVOLUTIONS = (*("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"),)
# A layer that computes that many rows or fewer, such as those that are told the time, gains nothing in int8.
_FEW_ROWS = 4
_INT4_GROUP = 256
_INT4_TABLE_GROUP = 32
_SMALLEST_GROUP = 16

Load = Callable[[int], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Kept:
    """Names of layers: ``whole`` ones stay as they are; of ``activations``, only the weights are compressed."""

    whole: frozenset[str]
    activations: frozenset[str]


def kept(model: ov.Model, recipe: Recipe, mode: str, shapes: Mapping[str, tuple[int, ...]]) -> Kept:
    """What stays out in a graph whose nodes have the given ``shapes``."""
    nodes = model.get_ordered_ops()
    convolutions = [node for node in nodes if node.get_type_name() == "Convolution"]
    whole = {name for layer in recipe.kept for name in _named(layer, convolutions)}
    activations = set(whole)
    for node in nodes:
        kind = node.get_type_name()
        if kind in _CONVOLUTIONS:
            continue
        rows = math.prod(shapes.get(node.get_friendly_name(), (_FEW_ROWS + 1, 1))[:-1])
        if kind == "ScaledDotProductAttention" or (
            kind == "MatMul" and (mode == "mixed" or rows <= _FEW_ROWS or not _has_weights(node))
        ):
            activations.add(node.get_friendly_name())
    return Kept(frozenset(whole), frozenset(activations))


def _named(layer: Layer, convolutions: Sequence[ov.Node]) -> list[str]:
    fitting = [node for node in convolutions if not layer.pointwise or tuple(node.input_value(1).shape[2:]) == (1, 1)]
    return [fitting[-1 if layer.last else 0].get_friendly_name()] if fitting else []


def _has_weights(node: ov.Node) -> bool:
    source = node.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape"):
        source = source.input_value(0).get_node()
    return bool(source.get_type_name() == "Constant")


def with_activations(model: ov.Model, out: Kept, samples: Sequence[int], load: Load) -> ov.Model:
    """``model`` with int8 activations and weights, but for what is kept ``out``."""
    inside = {node.get_friendly_name() for node in model.get_ops()}
    wanted = [
        node
        for node in model.get_ops()
        if node.get_type_name() in (*_CONVOLUTIONS, "MatMul") and node.get_friendly_name() not in out.activations
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
            smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        ),
    )
    return quantized


def with_small_weights(model: ov.Model, weights: str, out: Kept) -> ov.Model:
    """``model`` with those weights in int8 or int4 that are still in f16 or f32, but for what is kept ``out``."""
    inside = {node.get_friendly_name() for node in model.get_ops()}
    names = sorted(out.whole & inside)
    if weights == "int4":
        tables = [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() == "Gather"]
        model = _int4(model, _INT4_GROUP, [*names, *tables])
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
