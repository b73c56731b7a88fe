"""Low-rank adaptation of linear layers and convolutions (LoRA, arXiv 2106.09685), and its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """A parametrization W + B A of a weight W [out, ...], which it flattens to a matrix.

    Alpha equals the rank, so that the product has no factor. It starts at zero.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.rank = min(rank, rows, columns)
        self.down = nn.Parameter(torch.randn(self.rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, self.rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, in the shape of ``weight``."""
        adapted: Tensor = weight + (self.up @ self.down).view_as(weight)
        return adapted


def add_adapters(network: nn.Module, layers: str, rank: int) -> nn.ModuleDict:
    """Freeze ``network`` and adapt those of its layers whose paths the pattern ``layers`` matches.

    Returns the trainable factors by the layers' paths, with "/" in place of ".".
    """
    network.requires_grad_(False)
    factors = nn.ModuleDict()
    for path, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d) and re.fullmatch(layers, path):
            factor = LowRank(layer.weight, rank)
            parametrize.register_parametrization(layer, "weight", factor)
            factors[path.replace(".", "/")] = factor
    if not factors:
        raise ValueError(f"no layer's path matches {layers!r}")
    return factors


def write_adapter(
    file: Path, states: Mapping[str, Mapping[str, Tensor]], shapes: Mapping[str, torch.Size], about: Mapping[str, str]
) -> None:
    """Write factors in diffusers' layout, in f16, with PEFT's settings in the metadata.

    Args:
        file: the .safetensors file.
        states: for each network, by its prefix in the file, the state of its factors.
        shapes: the shapes of the adapted weights, by prefix and path.
        about: further metadata.
    """
    tensors, settings = dict[str, Tensor](), dict[str, object]()
    for prefix, state in states.items():
        ranks = dict[str, int]()
        for path, down, up in _pairs(state):
            ranks[path] = len(down)
            name, shape = f"{prefix}.{path}", shapes[f"{prefix}.{path}"]
            # A convolution's first factor has its kernel, the second is a convolution of one pixel.
            pixel = (1,) * len(shape[2:])
            tensors[f"{name}.lora_A.weight"] = down.view(-1, *shape[1:]).half().contiguous()
            tensors[f"{name}.lora_B.weight"] = up.view(*up.shape, *pixel).half().contiguous()
        rank = max(ranks.values())
        lower = {path: each for path, each in ranks.items() if each != rank}
        settings |= {f"{prefix}.r": rank, f"{prefix}.lora_alpha": rank, f"{prefix}.target_modules": sorted(ranks)}
        settings |= {f"{prefix}.rank_pattern": lower, f"{prefix}.alpha_pattern": lower}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    save_file(tensors, partial, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(settings), **about})
    partial.replace(file)


def _pairs(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    for key in state:
        if key.endswith(".down"):
            name = key.removesuffix(".down")
            yield name.replace("/", "."), state[key], state[f"{name}.up"]
