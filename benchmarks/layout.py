"""Times Würstchen's decoder (Stage B) as published and in several layouts of its blocks.

    python -m benchmarks.layout [--runs 5] [--size 1024]

The decoder has the published configuration and random weights in f16; one call generates the
latents of a square picture. The first graph is the authors'. The others compute what doesn't depend
on the step outside. Their blocks have channels first with 1×1 convolutions, channels last with
linear layers, or both by width, as they are built here. The graphs take turns.
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

from benchmarks.published_configs import DECODER
from benchmarks.timing import compile_graph, median_seconds
from training.wuerstchen.modules import StageB
from vinograph.families.wuerstchen import network, network_blocks
from vinograph.networks.graph import Weights

TOKENS = 77
TRACED_SIZE = 256  # pixels; the traced graph takes any size
WIDTHS = {
    "folded, 1×1 convolutions": 10**6,
    "folded, linear layers": 0,
    "folded, linear layers from 1024 channels on": network_blocks.CHANNELS_LAST_WIDTH,
}


@dataclass(frozen=True)
class Half:
    """A tensor in half precision, with the interface of one in a safetensors file."""

    values: NDArray[np.float16]
    dtype: str = "F16"

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's dimensions."""
        return self.values.shape

    def array(self) -> NDArray[np.float16]:
        """The tensor's values."""
        return self.values


class Published(nn.Module):
    """The decoder as the authors compute it: noise from x, r, the resized embeddings, and clip."""

    def __init__(self, decoder: StageB) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor, r: Tensor, *conditioning: Tensor) -> Tensor:
        """The noise in ``x``; ``conditioning`` is the resized embeddings, then clip."""
        embeddings = iter(conditioning[:-1])
        injects = self.decoder.config.inject_effnet
        a, b = self.decoder.predict(x, r, [next(embeddings) if each else None for each in injects], conditioning[-1])
        noise: Tensor = (x - a) / b
        return noise


def published_inputs(decoder: StageB, size: int) -> tuple[Tensor, ...]:
    """Random inputs of the published graph for a picture of ``size`` pixels."""
    config, side = decoder.config, size // 4
    levels = [level for level, injects in enumerate(config.inject_effnet) if injects]
    grids = [side // config.patch_size // 2**level for level in levels]
    embeddings = [torch.randn(1, config.effnet_embd, grid, grid) for grid in grids]
    text = torch.randn(1, TOKENS, config.clip_embd)
    return torch.randn(1, config.c_in, side, side), torch.full((1,), 0.5), *embeddings, text


def published(decoder: StageB, size: int, file: Path) -> tuple[ov.InferRequest, list[Any]]:
    """The authors' graph, compiled for a picture of ``size`` pixels, and its inputs."""
    ov.save_model(ov.convert_model(Published(decoder), example_input=published_inputs(decoder, TRACED_SIZE)), file)
    model, inputs = ov.Core().read_model(file), published_inputs(decoder, size)
    model.reshape(dict(enumerate(list(each.shape) for each in inputs)))
    return compile_graph(model), [each.numpy() for each in inputs]


def folded(decoder: StageB, size: int, width: int, tensors: Mapping[str, Half]) -> tuple[ov.InferRequest, list[Any]]:
    """Our graph with channels last from ``width`` channels on, compiled, and its inputs."""
    network_blocks.CHANNELS_LAST_WIDTH = width
    graph = network.decoder(decoder.config, Weights(tensors, "the decoder"))
    side, levels = size // 4, range(len(decoder.config.c_hidden))
    grids = {f"{axis}_{k}": side // decoder.config.patch_size // 2**k for k in levels for axis in "HW"}
    sizes = {"b": 1, "n": TOKENS, "H": side, "W": side, **grids}
    shapes = [[sizes[each] if isinstance(each, str) else each for each in port.shape] for port in graph.inputs.values()]
    inputs = [torch.rand(shape) for shape in shapes]
    graph.model.reshape(dict(enumerate(list(each.shape) for each in inputs)))
    return compile_graph(graph.model), [each.numpy() for each in inputs]


def main() -> None:
    """Time the graphs and print the table."""
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
        seconds = median_seconds(requests, arguments.runs)
    print(f"| decoder, {arguments.size}×{arguments.size} | a call, median of {arguments.runs} |\n| --- | --- |")
    for name, each in seconds.items():
        print(f"| {name} | {each:.3g} s |")


if __name__ == "__main__":
    main()
