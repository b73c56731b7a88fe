"""What attention of the latents to each other gains and loses in int8.

    python -m benchmarks.int8_attention pixart-f16 transformer [--runs 3]

In a graph whose attention isn't quantized, the operands of its first product (*scores*), which is what quantization
does for PixArt and Würstchen, or of both are rounded to int8 as NNCF does: symmetric, by the largest value that one
call shows. For both, the fused attention is taken apart, and its probabilities are rounded between 0 and 1. The
variants take turns, on what one step of a drawing gives the component. PSNR is against the graph as it is.
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

from benchmarks.quantization import decibels
from benchmarks.turns import compiled, component, seconds

LEAST_TOKENS = 256  # attention to fewer is to the text, and takes no time
VARIANTS = ("as it is", "scores in int8", "both products in int8")
Nodes = Sequence[ov.Node]
Values = Mapping[str, NDArray[Any]]


def self_attention(model: ov.Model) -> Nodes:
    """The fused attentions among image tokens."""
    fused = [node for node in model.get_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    return [node for node in fused if node.input_value(1).get_partial_shape()[2].get_length() >= LEAST_TOKENS]


def largest(model: ov.Model, inputs: Values) -> list[list[float]]:
    """The largest magnitudes of queries, keys and values, of each self-attention."""
    watched = model.clone()
    ports = [node.input_value(each) for node in self_attention(watched) for each in range(3)]
    axes: Any = ops.constant(np.arange(4))
    results = [ops.result(ops.reduce_max(ops.absolute(port), axes, keep_dims=False)) for port in ports]
    before = len(watched.outputs)
    watched.add_results(results)
    found = compiled(watched).infer(dict(inputs))
    values = [float(found[before + each]) for each in range(len(results))]
    return [values[each : each + 3] for each in range(0, len(values), 3)]


def symmetric(port: ov.Output, reach: float) -> ov.Node:
    """Rounded to int8."""
    low, high = ops.constant(np.float32(-reach)), ops.constant(np.float32(reach * 127 / 128))
    return ops.fake_quantize(port, low, high, low, high, 256)


def quantize(model: ov.Model, reaches: Sequence[Sequence[float]], *, both: bool) -> None:
    """Round the operands of each self-attention's first product, or of both."""
    for node, reach in zip(self_attention(model), reaches, strict=True):
        query, key = (symmetric(node.input_value(each), reach[each]) for each in range(2))
        if not both:
            node.input(0).replace_source_output(query.output(0))
            node.input(1).replace_source_output(key.output(0))
            continue
        width = query.get_output_partial_shape(0)[3].get_length()
        scores = ops.matmul(query, key, transpose_a=False, transpose_b=True)
        shares = ops.softmax(ops.multiply(scores, ops.constant(np.float32(1 / math.sqrt(width)))), -1)
        none, all_ = ops.constant(np.float32(0)), ops.constant(np.float32(1))
        shares = ops.fake_quantize(shares, none, all_, none, all_, 256)
        mixed = ops.matmul(shares, symmetric(node.input_value(2), reach[2]), transpose_a=False, transpose_b=False)
        for target in list(node.output(0).get_target_inputs()):
            target.replace_source_output(mixed.output(0))
    model.validate_nodes_and_infer_types()


def main() -> None:
    """Compile the variants, run them in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("component")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    file, inputs = component(arguments.bundle, arguments.component)
    model = ov.Core().read_model(file)
    model.reshape({name: list(value.shape) for name, value in inputs.items()})
    reaches = largest(model, inputs)
    requests = {}
    for variant in VARIANTS:
        changed = model.clone()
        if variant != VARIANTS[0]:
            quantize(changed, reaches, both=variant == VARIANTS[2])
        requests[variant] = (compiled(changed), inputs)
    taken = seconds(requests, arguments.runs)
    outputs = {name: np.array(request.get_output_tensor(0).data) for name, (request, _) in requests.items()}
    print(f"| self-attention, {len(reaches)} layers | a call, median of {arguments.runs} | PSNR |\n| --- | --- | --- |")
    exact = outputs[VARIANTS[0]]
    for name in VARIANTS:
        distance = "" if name == VARIANTS[0] else f"{decibels([exact], [outputs[name]]):.1f} dB"
        print(f"| {name} | {taken[name]:.2f} s | {distance} |")


if __name__ == "__main__":
    main()
