"""Adapters made by the tools that people train them with, and the weights that these tools merge."""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from lycoris import LycorisNetwork, create_lycoris
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from vinograph.adapters.adaptation import NO_ADAPTERS, adapt
from vinograph.components import source_of
from vinograph.models.model import Model
from vinograph.networks.stored import in_f32
from vinograph.runtime.ir_weights import weights_of

Array = NDArray[np.float32]
Tensors = dict[str, torch.Tensor]

logging.getLogger("LyCORIS").setLevel(logging.WARNING)
_FIRST = "lycoris_"


@dataclass(frozen=True)
class Made:
    """An adapter's tensors, or its folder, and the network's weights with it at full strength."""

    tensors: Tensors
    merged: dict[str, Array]
    folder: Path | None = None


def randomised(parameters: Iterator[tuple[str, nn.Parameter]], seed: int) -> None:
    """Fill an adapter's parameters; DoRA's magnitudes stay near what they are."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            if "dora_scale" in name or "magnitude" in name:
                parameter.mul_(1 + 0.1 * noise)
            else:
                parameter.copy_(0.2 * noise)


def by_lycoris(network: nn.Module, *, seed: int = 0, **settings: Any) -> Made:
    """Train-like random adapter of LyCORIS on a copy of ``network``, merged by LyCORIS."""
    network = copy.deepcopy(network)
    kinds = ["Attention", "FeedForward", "ResnetBlock2D", "Transformer2DModel"]
    LycorisNetwork.apply_preset({"target_module": kinds, "target_name": []})
    sizes = {"linear_dim": 4, "linear_alpha": 2, "conv_dim": 3, "conv_alpha": 1.5}
    made = create_lycoris(network, 1.0, **{**sizes, **settings})
    made.apply_to()
    randomised(made.named_parameters(), seed)
    tensors = {name: value.detach().clone() for name, value in made.state_dict().items()}
    made.restore()
    for module in made.loras:
        if hasattr(module, "get_weight"):
            module.get_diff_weight = _scaled_once(module)
    with torch.no_grad():
        made.merge_to(1.0)
    return Made(tensors, weights_of_network(network))


def _scaled_once(module: Any) -> Callable[..., Any]:
    """The difference that LyCORIS trains with; merging LoHa and LoKr, it scales twice."""

    def difference(multiplier: float = 1, shape: Any = None, device: Any = None) -> Any:
        return module.get_weight(shape) * multiplier, device

    return difference


def by_peft(network: nn.Module, config: peft.PeftConfig, folder: Path, *, seed: int = 0) -> Made:
    """Random adapter of PEFT's on a copy of ``network``, saved and merged by PEFT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers for what it renamed, and doubts its own biases
        model = peft.get_peft_model(copy.deepcopy(network), config)
        own = ((name, each) for name, each in model.named_parameters() if _is_peft(name))
        randomised(own, seed)
        model.save_pretrained(str(folder))
        merged = weights_of_network(model.merge_and_unload())
    return Made(load_file(folder / "adapter_model.safetensors"), merged, folder)


def _is_peft(name: str) -> bool:
    return any(each in name for each in ("lora_", "hada_", "lokr_", "modules_to_save"))


def weights_of_network(network: nn.Module) -> dict[str, Array]:
    """A network's weights by name."""
    return {name: value.detach().float().numpy().copy() for name, value in network.state_dict().items()}


def saved(tensors: Tensors, file: Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write an adapter's file."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, file, metadata=dict(metadata or {}))
    return file


def ours(model: Model, component: str, adapters: Mapping[Any, float]) -> dict[str, Array]:
    """The weights of a component's graph as we compute with it, by the checkpoint's names."""
    adaptation = adapt(model, adapters) if adapters else NO_ADAPTERS
    source = source_of(model, component, adaptation)
    graph = source.read()
    return {name: np.array(in_f32(weight)) for name, weight in weights_of(graph).items()}


def assert_merged(found: Mapping[str, Array], expected: Mapping[str, Array], plain: Mapping[str, Array]) -> int:
    """Check every weight of a graph against the expected one; returned is how many changed."""
    changed = 0
    for name, weight in found.items():
        if name not in expected:
            continue
        wanted = expected[name].reshape(weight.shape)
        scale = np.abs(wanted).max() + 1e-6
        assert np.abs(weight - wanted).max() <= 2e-6 * scale, name
        changed += not np.array_equal(wanted, plain[name].reshape(weight.shape))
    return changed


def renamed(tensors: Tensors, change: Callable[[str], str]) -> Tensors:
    """The tensors of an adapter, with the path of each module changed; roles stay."""
    found = {}
    for key, value in tensors.items():
        path, _, role = key.partition(".")
        found[f"{change(path)}.{role}"] = value
    return found


def kohya(path: str) -> str:
    """kohya's path of a UNet's module, with diffusers' names, given LyCORIS's."""
    return f"lora_unet_{path.removeprefix(_FIRST)}"


_INSIDE = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
    "norm1": "in_layers_0",
    "norm2": "out_layers_0",
}


def kohya_ldm(path: str) -> str:
    """kohya's path of a module of a UNet with two layers in each block, with LDM's names.

    Down block i, layer j is input block 3 i + j + 1; up block i, layer j is output block 3 i + j.
    """
    path = path.removeprefix(_FIRST)
    found = re.fullmatch(r"(down|up)_blocks_(\d+)_(resnets|attentions)_(\d+)_(.+)", path)
    if found:
        way, block, kind, layer, rest = found.groups()
        number = 3 * int(block) + int(layer) + (way == "down")
        inside = _INSIDE[rest] if kind == "resnets" else rest
        return (
            f"lora_unet_{'input' if way == 'down' else 'output'}_blocks_{number}_{int(kind == 'attentions')}_{inside}"
        )
    found = re.fullmatch(r"mid_block_(resnets|attentions)_(\d+)_(.+)", path)
    assert found is not None, path
    kind, layer, rest = found.groups()
    place = 1 if kind == "attentions" else 2 * int(layer)
    return f"lora_unet_middle_block_{place}_{_INSIDE[rest] if kind == 'resnets' else rest}"
