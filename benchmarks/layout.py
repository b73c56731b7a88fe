"""Würstchen's decoder (Stage B) as published and as converted, with linear layers and with 1×1 convolutions.

    python -m benchmarks.layout [--runs 5] [--size 1024]

The published configuration with random weights, in f16, for latents of a square picture, one call of it: the graph as
the authors wrote it; then folded, with all that doesn't depend on the step outside, and its blocks with channels first
and 1×1 convolutions, with channels last and linear layers, or mixed by width as conversion does. They take turns.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from torch import Tensor, nn
from vinograph.convert.wuerstchen_graphs import Decoder, attention_blocks
from vinograph.modules import StageB

from benchmarks.full_size import DECODER
from benchmarks.turns import compiled, seconds
from vinograph.convert import wuerstchen_graphs

TOKENS = 77
TRACED = 256  # pixels; the graphs take any size
WIDTHS = {
    "folded, 1×1 convolutions": 10**6,
    "folded, linear layers": 0,
    "folded, linear layers from 1024 channels on": wuerstchen_graphs.CHANNELS_LAST_WIDTH,
}


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


def inputs(decoder: StageB, size: int, *, folded: bool) -> tuple[Tensor, ...]:
    """What a call is given for a picture of ``size`` pixels."""
    config = decoder.config
    side = size // 4
    levels = [level for level, injects in enumerate(config.inject_effnet) if injects]
    places = [side // config.patch_size // 2**level for level in levels]
    maps = [torch.randn(1, config.effnet_embd, place, place) for place in places]
    widths = [block.attention.to_k.out_features for block in attention_blocks(decoder) for _ in range(2)]
    text = [torch.randn(1, TOKENS, width) for width in widths] if folded else [torch.randn(1, TOKENS, config.clip_embd)]
    return torch.randn(1, config.c_in, side, side), torch.full((1,), 0.5), *maps, *text


def request(name: str, size: int, file: Path) -> tuple[ov.InferRequest, list[Any]]:
    """The graph of that name, compiled for a picture of ``size`` pixels, and what it is given."""
    decoder = StageB.from_config(DECODER).eval()
    folded = name in WIDTHS
    example, given = (inputs(decoder, each, folded=folded) for each in (TRACED, size))
    wuerstchen_graphs.CHANNELS_LAST_WIDTH = WIDTHS.get(name, 0)
    graph = ov.convert_model(Decoder(decoder) if folded else Published(decoder), example_input=example)
    ov.save_model(graph, file)
    del graph, decoder
    gc.collect()
    graph = ov.Core().read_model(file)
    graph.reshape(dict(enumerate(list(each.shape) for each in given)))
    return compiled(graph), [each.numpy() for each in given]


def main() -> None:
    """Make the graphs, call them in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=".") as folder, torch.no_grad():
        names = ("as published", *WIDTHS)
        requests = {
            name: request(name, arguments.size, Path(folder) / f"{index}.xml") for index, name in enumerate(names)
        }
        found = seconds(requests, arguments.runs)
    print(f"| decoder, {arguments.size}×{arguments.size} | a call, median of {arguments.runs} |\n| --- | --- |")
    for name, taken in found.items():
        print(f"| {name} | {taken:.3g} s |")


if __name__ == "__main__":
    main()
