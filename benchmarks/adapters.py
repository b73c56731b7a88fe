"""Measures adapters: what merging costs in time and memory, and what it loses on low-bit models.

    python -m benchmarks.adapters cost MODEL [--rank 64] [--component NAME] [--pictures]
    python -m benchmarks.adapters loss MODEL QUANTIZED [--rank 8] [--size 0.02]

Both write an adapter (LoRA) of random weights for all linear layers of the model's networks.
*cost* merges it as a pipeline does before it compiles, then three times with another weight. It
prints the seconds, and the peak of anonymous memory. Last it writes as many bytes to a new file,
which is what merging cannot do without. With --component, only that one is merged.
*loss* draws a picture with a model in f16 and with its quantized copy, without the adapter and with
it, and prints the PSNR between the two models' pictures, and the merged weights' relative error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph import Pipeline
from vinograph.adapters.adaptation import NO_ADAPTERS, adapt
from vinograph.adapters.model_weights import read_weights
from vinograph.benchmark.memory import measure_peaks
from vinograph.components import scratch_for, source_of
from vinograph.models import catalog
from vinograph.models.model import Model
from vinograph.networks.stored import in_f32
from vinograph.runtime.ir_weights import weights_of

PROMPT = "a red house on a snowy hill at night"
_TABLES = ("embedding", "embed_tokens", "shared")


def write_adapter(model: Model, file: Path, rank: int, size: float) -> int:
    """Write a LoRA for all linear layers; returns their number.

    ``size`` is the deviation of a difference's values.
    """
    weights, rng = read_weights(model), np.random.default_rng(0)
    tensors: dict[str, NDArray[np.float16]] = {}
    for part, shapes in zip(weights.names.parts, weights.shapes, strict=True):
        for name, shape in shapes.items():
            path = name.removesuffix(".weight")
            if path == name or len(shape) != 2 or any(table in name for table in _TABLES):
                continue
            down = rng.standard_normal((rank, shape[1]), np.float32) / math.sqrt(rank)
            up = rng.standard_normal((shape[0], rank), np.float32) * size
            for role, values in (("lora_A", down), ("lora_B", up)):
                tensors[f"{part.dotted[0]}.{path}.{role}.weight"] = values.astype(np.float16)
    _write(file, tensors)
    return len(tensors) // 2


def _write(file: Path, tensors: dict[str, NDArray[np.float16]]) -> None:
    header, position = {}, 0
    for name, values in tensors.items():
        end = position + values.nbytes
        header[name] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            stream.write(values.tobytes())


def cost(model: Model, file: Path, component: str | None, pictures: bool) -> None:
    """Print the seconds and the memory of merging, in one component or in all."""
    changed = adapt(model, {file: 1.0})
    names = [component] if component else [each for each in model.manifest.components if changed.changes(each)]
    scratches = {name: scratch_for(name) for name in names}
    for title, weight in (("without", 0), ("added", 1), *(("another weight", each) for each in (0.5, 0.7, 0.3))):
        with _printed(title):
            adaptation = adapt(model, {file: weight}) if weight else NO_ADAPTERS
            for name, scratch in scratches.items():
                scratch.empty()
                source_of(model, name, adaptation, scratch).read()
    size = sum(each.end for scratch in scratches.values() for each in scratch._files)
    with _printed(f"{size / 1e9:.1f} GB written to a new file"):
        block = np.zeros(1 << 20, np.uint8)
        place = scratch_for("a measure").room((size,), block.dtype)
        for begin in range(0, size, block.size):
            place.write(begin, block[: size - begin])
    if pictures:
        _draw_in_turns(model, file)


@contextmanager
def _printed(title: str) -> Iterator[None]:
    """Print what the block takes."""
    with measure_peaks(os.getpid()) as peaks:
        start, before = time.perf_counter(), os.times()
        yield
        seconds, after = time.perf_counter() - start, os.times()
    user, system = after.user - before.user, after.system - before.system
    print(
        f"{title}: {seconds:.2f} s, processors {user:.2f} + {system:.2f} s (user + system), "
        f"anonymous {peaks.anonymous / 1e6:.0f} MB",
        flush=True,
    )


def _draw_in_turns(model: Model, file: Path) -> None:
    for title, given in (("without", {}), ("added", {file: 1.0}), ("another weight", {file: 0.5})):
        with measure_peaks(os.getpid()) as peaks:
            start = time.perf_counter()
            Pipeline(model, memory="low", adapters=given)(PROMPT, seed=7, output_type="np")
            seconds = time.perf_counter() - start
        print(f"picture, {title}: {seconds:.1f} s, anonymous {peaks.anonymous / 1e6:.0f} MB", flush=True)


def loss(model: Model, quantized: Model, file: Path) -> None:
    """Print what a quantized model loses without and with the adapter."""
    for title, given in (("without", {}), ("with the adapter", {file: 1.0})):
        one, other = (Pipeline(each, precision="f32", adapters=given) for each in (model, quantized))
        pictures = [pipe(PROMPT, seed=7, output_type="np").images for pipe in (one, other)]
        error = float(np.mean(np.square(pictures[0] - pictures[1])))
        print(f"{title}: PSNR {-10 * math.log10(error):.1f} dB, weights {_weight_error(model, quantized, given):.2%}")


def _weight_error(model: Model, quantized: Model, given: dict[Any, float]) -> float:
    """The relative error of the matrices of all components that adapters may change."""
    held = read_weights(model).held
    adaptations = [adapt(each, given) if given else NO_ADAPTERS for each in (model, quantized)]
    square = total = 0.0
    for name in held:
        # Graphs refer to what their sources hold.
        sources = [source_of(each, name, own) for each, own in zip((model, quantized), adaptations, strict=True)]
        one, other = (weights_of(source.read()) for source in sources)
        for weight in one.keys() & other.keys():
            values = in_f32(one[weight])
            if values.ndim > 1:
                square += float(np.square(values - in_f32(other[weight]).reshape(values.shape)).sum())
                total += float(np.square(values).sum())
    return math.sqrt(square / total)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "loss"))
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--size", type=float, default=0.002)
    parser.add_argument("--component")
    parser.add_argument("--pictures", action="store_true")
    given = parser.parse_args()
    models = [catalog.find(each) for each in given.models]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.safetensors"
        layers = write_adapter(models[0], file, given.rank, given.size)
        print(f"rank {given.rank}, {layers} layers, {file.stat().st_size / 1e6:.0f} MB")
        if given.what == "cost":
            cost(models[0], file, given.component, given.pictures)
        else:
            loss(models[0], models[1], file)


if __name__ == "__main__":
    main()
