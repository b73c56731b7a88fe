"""Running a bundle's graphs in f32, and comparing their outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openvino as ov
import torch
from torch import Tensor

from vinograph.models.bundle import Bundle


def compile_component(bundle: Bundle, name: str) -> ov.CompiledModel:
    """One component, to be computed in f32."""
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return ov.Core().compile_model(bundle.path / bundle.manifest.components[name].file, "CPU", settings)


def compile_all(bundle: Bundle) -> dict[str, ov.CompiledModel]:
    """All components, by name."""
    return {name: compile_component(bundle, name) for name in bundle.manifest.components}


def run(session: ov.CompiledModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a graph, by name."""
    results = session({key: value.numpy() for key, value in inputs.items()})
    return {port.get_any_name(): torch.from_numpy(np.array(value)) for port, value in results.items()}


def assert_equal(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Compare up to the order of sums: ``tolerance`` is a share of the largest value."""
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert difference < tolerance, f"differs by {difference:.1e} of the largest value"
