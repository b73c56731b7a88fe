"""Würstchen's decoder (Stage B) as published and as it is built here, with linear layers and with 1×1 convolutions.

    python -m benchmarks.layout [--runs 5] [--size 1024]

The published configuration with random weights, in f16, for latents of a square picture, one call of it: the graph as
the authors wrote it; then with what doesn't depend on the step outside, and its blocks with channels first and 1×1
convolutions, with channels last and linear layers, or mixed by width as they are built. They take turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.full_size import DECODER
from benchmarks.turns import compiled, seconds
from training.wuerstchen.modules import StageB
from vinograph.families.wuerstchen import network, network_blocks
from vinograph.networks.graph import Weights

TOKENS = 77
TRACED = 256  # pixels; the graphs take any size
WIDTHS = {
    "folded, 1×1 convolutions": 10**6,
    "folded, linear layers": 0,
    "folded, linear layers from 1024 channels on": network_blocks.CHANNELS_LAST_WIDTH,
}


@dataclass(frozen=True)
class Half:
    """A tensor in half precision."""

    values: NDArray[np.float16]
    dtype: str = "F16"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        return self.values.shape

    def array(self) -> NDArray[np.float16]:
        """Its values."""
        return self.values


class Published(nn.Module):
    """x, r, the embeddings' maps, clip -> noise, as the authors compute it."""

    def __init__(self, decoder: StageB) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor, r: Tensor, *conditions: Tensor) -> Tensor:
        """See the class."""
        maps = iter(conditions[:-1])
        injects = self.decoder.config.inject_effnet
        a, b = self.decoder.predict(x, r, [next(maps) if each else None for each in injects], conditions[-1])
        noise: Tensor = (x - a) / b
        return noise


def inputs(decoder: StageB, size: int) -> tuple[Tensor, ...]:
    """What a call of the published graph is given for a picture of ``size`` pixels."""
    config, side = decoder.config, size // 4
    levels = [level for level, injects in enumerate(config.inject_effnet) if injects]
    places = [side // config.patch_size // 2**level for level in levels]
    maps = [torch.randn(1, config.effnet_embd, place, place) for place in places]
    text = torch.randn(1, TOKENS, config.clip_embd)
    return torch.randn(1, config.c_in, side, side), torch.full((1,), 0.5), *maps, text


def published(decoder: StageB, size: int, file: Path) -> tuple[ov.InferRequest, list[Any]]:
    """The graph as the authors wrote it, compiled for a picture of ``size`` pixels, and what it is given."""
    ov.save_model(ov.convert_model(Published(decoder), example_input=inputs(decoder, TRACED)), file)
    model, given = ov.Core().read_model(file), inputs(decoder, size)
    model.reshape(dict(enumerate(list(each.shape) for each in given)))
    return compiled(model), [each.numpy() for each in given]


def folded(decoder: StageB, size: int, width: int, tensors: Mapping[str, Half]) -> tuple[ov.InferRequest, list[Any]]:
    """Our graph with channels last from ``width`` on, compiled likewise, and what it is given."""
    network_blocks.CHANNELS_LAST_WIDTH = width
    graph = network.decoder(decoder.config, Weights(tensors, "the decoder"))
    side, levels = size // 4, range(len(decoder.config.c_hidden))
    grids = {f"{axis}_{k}": side // decoder.config.patch_size // 2**k for k in levels for axis in "HW"}
    sizes = {"b": 1, "n": TOKENS, "H": side, "W": side, **grids}
    shapes = [[sizes[each] if isinstance(each, str) else each for each in port.shape] for port in graph.inputs.values()]
    given = [torch.rand(shape) for shape in shapes]
    graph.model.reshape(dict(enumerate(list(each.shape) for each in given)))
    return compiled(graph.model), [each.numpy() for each in given]


def main() -> None:
    """Make the graphs, call them in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    decoder = StageB.from_config(DECODER).eval().requires_grad_(False)
    tensors = {name: Half(each.half().numpy()) for name, each in decoder.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=".") as folder, torch.no_grad():
        requests = {"as published": published(decoder, arguments.size, Path(folder) / "published.xml")}
        for name, width in WIDTHS.items():
            requests[name] = folded(decoder, arguments.size, width, tensors)
        found = seconds(requests, arguments.runs)
    print(f"| decoder, {arguments.size}×{arguments.size} | a call, median of {arguments.runs} |\n| --- | --- |")
    for name, taken in found.items():
        print(f"| {name} | {taken:.3g} s |")


if __name__ == "__main__":
    main()
