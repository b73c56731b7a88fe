"""Helpers for tests of networks: tensors in memory or in a file, and runs of a graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray

from vinograph.networks.graph import Network

NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


@dataclass(frozen=True)
class MemoryTensor:
    """A PyTorch tensor as a network's weights are given."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        return NAMES[self.tensor.dtype]

    def array(self) -> NDArray[Any]:
        plain = self.tensor.detach().contiguous()
        return plain.view(torch.uint16).numpy() if plain.dtype == torch.bfloat16 else plain.numpy()


def tensors_of(module: torch.nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, MemoryTensor]:
    """The state of a module, its floating-point tensors in ``dtype``."""
    state = module.state_dict()
    return {name: MemoryTensor(each.to(dtype) if each.is_floating_point() else each) for name, each in state.items()}


def randomise(module: torch.nn.Module, seed: int = 0, scale: float = 0.2) -> torch.nn.Module:
    """Give every parameter random values that f16 and bf16 hold exactly.

    Norms are near one, and everything else is near zero.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * scale
            if "norm" in name and name.endswith("weight"):
                values = values + 1
            parameter.copy_(values.to(torch.bfloat16).to(torch.float16).float())
    return module.eval().requires_grad_(False)


Run = Callable[[Mapping[str, Any]], list[NDArray[np.float32]]]


def compiled(network: Network, precision: str = "f32") -> Run:
    """A function that runs a graph and returns its outputs in order."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1}
    session = ov.Core().compile_model(network.model, "CPU", settings)

    def compute(inputs: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        given = {name: each.numpy() if isinstance(each, torch.Tensor) else each for name, each in inputs.items()}
        results = session(given)
        return [np.array(results[name]) for name in network.outputs]

    return compute


def run(network: Network, inputs: Mapping[str, Any], precision: str = "f32") -> list[NDArray[np.float32]]:
    """A graph's outputs in order."""
    return compiled(network, precision)(inputs)
