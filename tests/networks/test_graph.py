"""How a graph holds matrices and vectors of each type that checkpoints have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.networks.agreement import NAMES, MemoryTensor
from vinograph.networks.graph import Port, Ports, Storage, Weights, build
from vinograph.networks.layers import linear
from vinograph.networks.values import Value


def stored(tensors: dict[str, torch.Tensor], storage: Storage) -> dict[str, tuple[str, NDArray[Any]]]:
    """The type and values of each constant of two linear layers, the second without bias."""
    weights = Weights({name: MemoryTensor(each) for name, each in tensors.items()}, "the checkpoint", storage)

    def compute(x: Value) -> Value:
        return linear(linear(x, weights["0"], 3), weights["1"], 2, bias=False)

    network = build(weights, Ports({"x": Port(("b", 2))}, {"y": Port(("b", 2))}), compute)
    weights.check_all_used()
    nodes = [node for node in network.model.get_ops() if node.get_friendly_name() in tensors]
    constants = [node for node in nodes if node.get_type_name() == "Constant"]
    return {
        each.get_friendly_name(): (each.get_output_element_type(0).get_type_name(), each.data.copy())
        for each in constants
    }


@pytest.mark.parametrize("dtype", [each for each in NAMES if each.is_floating_point])
def test_matrices_in_f16(dtype: torch.dtype) -> None:
    """Vectors stay in f32, and so does what f16 can't hold."""
    torch.manual_seed(7)
    tensors = {"0.weight": torch.randn(3, 2), "0.bias": torch.randn(3), "1.weight": torch.full((2, 3), 1e5)}
    tensors = {name: each.to(dtype) for name, each in tensors.items()}
    found = stored(tensors, Storage(halve=True))
    last = "f16" if dtype == torch.float16 else "f32"
    assert {name: kind for name, (kind, _) in found.items()} == {"0.weight": "f16", "0.bias": "f32", "1.weight": last}
    np.testing.assert_array_equal(found["0.weight"][1], tensors["0.weight"].to(torch.float16).numpy())
    np.testing.assert_array_equal(found["0.bias"][1].reshape(3), tensors["0.bias"].float().numpy())


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float64, "f32"), (torch.float32, "f32"), (torch.float16, "f16"), (torch.bfloat16, "bf16")],
)
def test_matrices_as_the_checkpoint_has_them(dtype: torch.dtype, kind: str) -> None:
    tensors = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(2, 3)}
    found = stored({name: each.to(dtype) for name, each in tensors.items()}, Storage())
    assert {name: each for name, (each, _) in found.items()} == {"0.weight": kind, "0.bias": "f32", "1.weight": kind}


def test_every_node_has_a_name_of_its_own() -> None:
    """A layer may have the name of an input and be used twice.

    Graphs are cut and quantized by the names of nodes.
    """
    tensors = {"x.weight": torch.ones(2, 2), "x.bias": torch.ones(2)}
    weights = Weights({name: MemoryTensor(each) for name, each in tensors.items()}, "the checkpoint", Storage())

    def compute(x: Value) -> Value:
        return linear(linear(x, weights["x"], 2), weights["x"], 2)

    network = build(weights, Ports({"x": Port(("b", 2))}, {"y": Port(("b", 2))}), compute)
    names = [node.get_friendly_name() for node in network.model.get_ops()]
    assert len(set(names)) == len(names)
    assert [node.get_friendly_name() for node in network.model.get_parameters()] == ["x"]
    assert {"x.weight", "x.bias"} <= set(names)
