"""The trained models: their components' tensors and configurations, and what bundles compute."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from safetensors.torch import load_file

from tests.networks.agreement import MemoryTensor

ROOT = Path(__file__).parents[2]


def tensors_in(model: str, component: str) -> dict[str, MemoryTensor]:
    """The tensors of a component's only file, as they are stored."""
    (file,) = (ROOT / "training" / "checkpoints" / model / component).glob("*.safetensors")
    return {name: MemoryTensor(each) for name, each in load_file(file).items()}


def config_of(model: str, component: str) -> dict[str, Any]:
    """The settings in its config.json."""
    file = ROOT / "training" / "checkpoints" / model / component / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if not name.startswith("_")}


def run_bundled(model: str, component: str, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """The outputs of the embedded bundle's component in order, computed in f32."""
    file = ROOT / "src" / "vinograph" / "embedded" / model / f"{component}.xml"
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(file, "CPU", settings)
    results = compiled(dict(inputs))
    return [np.array(results[port]) for port in compiled.outputs]
