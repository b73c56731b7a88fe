"""What a quantization takes and costs: minutes, memory, sizes, and each component's distance to f32.

    python benchmarks/quantization.py full/sdxl-f16 full/sdxl-full --mode full

The quantization is a process of its own, whose memory is looked at all the while; a TARGET that is there is measured as
it is. Distances are of components, each given what the first call of it is given in a drawing at the bundle's own size
by SOURCE: the PSNR of its output to what SOURCE computes in f32, with the range of that output as the peak. Beside that
of TARGET stands that of SOURCE in the precision that the processor chooses, which is what drawing loses anyway.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from memory import told, watched  # a script beside this one
from numpy.typing import NDArray

from vinograph.bundle import Bundle
from vinograph.pipeline import Pipeline
from vinograph.pipeline import watched as watched_drawing
from vinograph.runtime import Session

Values = Mapping[str, NDArray[Any]]
PROMPT = "a lighthouse by the sea at sunset"
QUANTIZE = "from vinograph.cli import main; main()"


def first_calls(bundle: Bundle, names: Collection[str] = ()) -> dict[str, Values]:
    """What each component (or those of ``names``) is given when it is first called in a drawing of few steps."""
    seen: dict[str, Values] = {}
    pipe = Pipeline(bundle, memory="low")

    def note(name: str, inputs: Values) -> None:
        if name not in seen and (not names or name in names):
            seen[name] = {key: np.array(value) for key, value in inputs.items()}

    steps = [argument for option, argument in pipe.options.items() if option.endswith("steps")]
    with watched_drawing(pipe, note):
        pipe(PROMPT, seed=7, **dict.fromkeys(steps, 1))
    return seen


def computed(bundle: Bundle, name: str, precision: str, inputs: Values) -> list[NDArray[np.float32]]:
    """A component's outputs."""
    component = bundle.manifest.components[name]
    session = Session(name, bundle.path / component.file, "CPU", precision, component.f16_safe)
    outputs = session(inputs)
    session.free()
    return [outputs[each] for each in sorted(outputs)]


def decibels(one: list[NDArray[np.float32]], other: list[NDArray[np.float32]]) -> float:
    """The PSNR of the outputs together; the peak of each is its range."""
    errors = [float(np.mean(((a - b) / np.ptp(a)) ** 2, dtype=np.float64)) for a, b in zip(one, other, strict=True)]
    mean = sum(errors) / len(errors)
    return -10 * math.log10(mean) if mean > 0 else math.inf


def megabytes(bundle: Bundle, name: str) -> float:
    """The size of a component's weights."""
    return bundle.manifest.files[bundle.manifest.components[name].file.removesuffix(".xml") + ".bin"].size / 1e6


def main() -> None:
    """Quantize where it isn't done, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--mode", default="full")
    arguments = parser.parse_args()
    if not arguments.target.exists():
        command = ["quantize", arguments.source, arguments.target, "--mode", arguments.mode]
        _, peaks, seconds = watched("-c", QUANTIZE, *command)
        print(f"quantize --mode {arguments.mode}: {told(peaks)}; {seconds / 60:.1f} minutes", flush=True)
    source, target = Bundle.open(arguments.source), Bundle.open(arguments.target)
    print("| component | MB before | MB after | ratio | PSNR before, dB | PSNR after, dB |\n" + "| --- " * 6 + "|")
    for name, inputs in first_calls(source).items():
        exact = computed(source, name, "f32", inputs)
        before, after = (decibels(exact, computed(each, name, "auto", inputs)) for each in (source, target))
        sizes = [megabytes(each, name) for each in (source, target)]
        cells = [f"{sizes[0]:.1f}", f"{sizes[1]:.1f}", f"{sizes[0] / sizes[1]:.3f}", f"{before:.1f}", f"{after:.1f}"]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
