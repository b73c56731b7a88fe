"""Measures what int8 self-attention of latents gains in speed and loses in precision.

    python -m benchmarks.int8_attention pixart-f16 transformer [--runs 3]

In a graph whose attention isn't quantized, the operands of its first product (*scores*) are rounded
to int8, which is what quantization does for PixArt and Würstchen, or those of both products.
Rounding is NNCF's: symmetric, by the largest value of one call. For both products, the fused
attention is taken apart, and its probabilities are rounded between 0 and 1. The variants take
turns, with the inputs of one generation step. PSNR is against the unquantized graph.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from benchmarks.quantization import output_psnr
from benchmarks.timing import compile_graph, load_component, median_seconds

LEAST_TOKENS = 256  # fewer are text tokens, attention to which takes next to no time
VARIANTS = ("unquantized", "scores in int8", "both products in int8")
Inputs = Mapping[str, NDArray[Any]]


def self_attention(model: ov.Model) -> Sequence[ov.Node]:
    """The nodes of fused attention among image tokens."""
    fused = [node for node in model.get_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    return [node for node in fused if node.input_value(1).get_partial_shape()[2].get_length() >= LEAST_TOKENS]


def largest_magnitudes(model: ov.Model, inputs: Inputs) -> list[list[float]]:
    """The largest magnitudes of each self-attention's queries, keys and values in one call."""
    observed = model.clone()
    ports = [node.input_value(each) for node in self_attention(observed) for each in range(3)]
    axes: Any = ops.constant(np.arange(4))
    results = [ops.result(ops.reduce_max(ops.absolute(port), axes, keep_dims=False)) for port in ports]
    first_result = len(observed.outputs)
    observed.add_results(results)
    outputs = compile_graph(observed).infer(dict(inputs))
    values = [float(outputs[first_result + each]) for each in range(len(results))]
    return [values[each : each + 3] for each in range(0, len(values), 3)]


def symmetric_int8(port: ov.Output, magnitude: float) -> ov.Node:
    """``port`` rounded to int8, symmetrically for values up to ``magnitude``."""
    low, high = ops.constant(np.float32(-magnitude)), ops.constant(np.float32(magnitude * 127 / 128))
    return ops.fake_quantize(port, low, high, low, high, 256)


def quantize(model: ov.Model, magnitudes: Sequence[Sequence[float]], *, both: bool) -> None:
    """Round the operands of each self-attention's first product, or of both products, in place."""
    for node, magnitude in zip(self_attention(model), magnitudes, strict=True):
        query, key = (symmetric_int8(node.input_value(each), magnitude[each]) for each in range(2))
        if not both:
            node.input(0).replace_source_output(query.output(0))
            node.input(1).replace_source_output(key.output(0))
            continue
        width = query.get_output_partial_shape(0)[3].get_length()
        scores = ops.matmul(query, key, transpose_a=False, transpose_b=True)
        probabilities = ops.softmax(ops.multiply(scores, ops.constant(np.float32(1 / math.sqrt(width)))), -1)
        zero, one = ops.constant(np.float32(0)), ops.constant(np.float32(1))
        probabilities = ops.fake_quantize(probabilities, zero, one, zero, one, 256)
        value = symmetric_int8(node.input_value(2), magnitude[2])
        attended = ops.matmul(probabilities, value, transpose_a=False, transpose_b=False)
        for target in list(node.output(0).get_target_inputs()):
            target.replace_source_output(attended.output(0))
    model.validate_nodes_and_infer_types()


def main() -> None:
    """Time the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("component")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    file, inputs = load_component(arguments.bundle, arguments.component)
    model = ov.Core().read_model(file)
    model.reshape({name: list(value.shape) for name, value in inputs.items()})
    magnitudes = largest_magnitudes(model, inputs)
    requests = {}
    for variant in VARIANTS:
        graph = model.clone()
        if variant != VARIANTS[0]:
            quantize(graph, magnitudes, both=variant == VARIANTS[2])
        requests[variant] = (compile_graph(graph), inputs)
    seconds = median_seconds(requests, arguments.runs)
    outputs = {name: np.array(request.get_output_tensor(0).data) for name, (request, _) in requests.items()}
    print(
        f"| self-attention, {len(magnitudes)} layers | a call, median of {arguments.runs} | PSNR |\n| --- | --- | --- |"
    )
    exact = outputs[VARIANTS[0]]
    for name in VARIANTS:
        psnr = "" if name == VARIANTS[0] else f"{output_psnr([exact], [outputs[name]]):.1f} dB"
        print(f"| {name} | {seconds[name]:.2f} s | {psnr} |")


if __name__ == "__main__":
    main()
