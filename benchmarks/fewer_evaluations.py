"""Measures what fewer evaluations of a denoiser cost in quality, on a picture-book model.

    python -m benchmarks.fewer_evaluations storybook-pixart --out /tmp/pixart
    python -m benchmarks.fewer_evaluations storybook-sdxl --out /tmp/sdxl --pictures 100
        --base '{"num_inference_steps": 20, "guidance_scale": 2.0}'
    python -m benchmarks.fewer_evaluations storybook-wuerstchen --out /tmp/wuerstchen
        --setting '{"scheduler": "dpm++ 2m", "prior_num_inference_steps": 12}'

A setting is a JSON object of arguments of "generate"; without any, those of SETTINGS are measured.
--base holds for all of them, and for the default that they are compared with. The pictures have the
same prompts and seeds in each setting.

*Rows* are rows that the denoisers compute for one picture: a guided step has two. *Distance* is the
Fréchet distance (Heusel et al., arXiv 1706.08500) of the probe's features to those of the default.
*Of seeds* is the same in units of the distance between the default and the default with other
seeds, so that 1 can't be told from another seed. With few pictures it says little: a distance of
192 features wants some thousand. *Sharpness* is the variance of the Laplacian, relative to the
default's. *PSNR* is the median to the default's picture of the same seed.

Measured pictures stay in the folder OUT, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.judge import heldout_prompts
from training.probe import adherence, features, predict
from training.world import stated_attributes
from vinograph import Pipeline
from vinograph.benchmark import machine
from vinograph.contact_sheet import contact_sheet
from vinograph.families import registry
from vinograph.pipeline import observe_inputs

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float64]

SETTINGS: Sequence[Mapping[str, Any]] = (
    {"guidance_interval": [0.0, 0.5]},
    {"guidance_interval": [0.0, 0.75]},
    {"guidance_interval": [0.2, 0.8]},
    {"extrapolation_interval": 2},
    {"extrapolation_interval": 2, "extrapolation_order": 2},
    {"extrapolation_interval": 3},
    {"extrapolation_interval": 2, "guidance_interval": [0.0, 0.75]},
)

_BATCH = 10
_SHOWN = 8  # pictures of each setting in the sheet
_DEFAULT, _OTHER_SEEDS = "default", "other seeds"
_FIRST_OTHER_SEED = 1_000_000


@dataclass(frozen=True)
class Setting:
    """A setting to measure: its name, its arguments, and the seed of the first picture."""

    name: str
    arguments: Mapping[str, Any]
    first_seed: int = 0

    @property
    def folder(self) -> str:
        """A file name for it."""
        return "".join(letter if letter.isalnum() or letter in ".," else "-" for letter in self.name)


def name_of(arguments: Mapping[str, Any]) -> str:
    """The arguments as a short text."""
    return " ".join(f"{name} {json.dumps(value)}" for name, value in arguments.items()).replace('"', "")


def frechet_distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Fréchet distance between two sets of features [n, width], as if they were normal distributions.

    It is |m - m'|² + tr(C + C' - 2 √(C C')), where the last trace is the sum of the square roots of
    the eigenvalues of √C C' √C.
    """
    sets = [np.asarray(each, np.float64) for each in (one, other)]
    means, (first, second) = [each.mean(0) for each in sets], [np.cov(each, rowvar=False) for each in sets]
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * cross)


def sharpness(pictures: Pictures) -> Floats:
    """Variance of the Laplacian of each picture [n, height, width, 3], in grey."""
    grey = pictures.astype(np.float64).mean(3)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return np.asarray((around - 4 * grey[:, 1:-1, 1:-1]).var(axis=(1, 2)))


def psnrs(one: Pictures, other: Pictures) -> Floats:
    """PSNR in dB of each picture; equal ones have 100."""
    errors = ((one.astype(np.float64) - other) ** 2).mean(axis=(1, 2, 3))
    return np.asarray(10 * np.log10(255**2 / np.maximum(errors, 255**2 * 1e-10)))


class Measurement:
    """Draws settings in batches, and keeps what was measured of each batch in a file."""

    def __init__(self, pipe: Pipeline, out: Path, base: Mapping[str, Any], pictures: int) -> None:
        self._pipe, self._out, self._base = pipe, out, base
        self._prompts = [text for _, text in heldout_prompts(pictures)]
        recipe = registry.module(pipe.model.manifest.family, "recipe").RECIPE
        self._denoisers = {name for name, each in recipe.items() if each.steps is not None}

    def measure(self, setting: Setting) -> dict[str, NDArray[Any]]:
        """What was measured of each picture of the setting, [pictures, ...] by name."""
        folder = self._out / setting.folder
        folder.mkdir(parents=True, exist_ok=True)
        batches = []
        for start in range(0, len(self._prompts), _BATCH):
            prompts = self._prompts[start : start + _BATCH]
            file = folder / f"{start:05}-{len(prompts)}.npz"
            if not file.exists():
                _store(file, self._measure_batch(setting, start, prompts))
            with np.load(file) as stored:
                batches.append({name: stored[name] for name in stored.files if name != "pictures"})
            print(f"\r{setting.name}: {start + len(prompts)} of {len(self._prompts)}", end="", flush=True)
        print()
        return {name: np.concatenate([each[name] for each in batches]) for name in batches[0]}

    def _measure_batch(self, setting: Setting, start: int, prompts: Sequence[str]) -> dict[str, NDArray[Any]]:
        rows = 0

        def count(component: str, inputs: Mapping[str, NDArray[Any]]) -> None:
            nonlocal rows
            rows += len(next(iter(inputs.values()))) if component in self._denoisers else 0

        arguments = {**self._base, **setting.arguments, "seed": setting.first_seed + start, "output_type": "np"}
        with observe_inputs(self._pipe, count):
            begin = time.perf_counter()
            drawn = self._pipe(list(prompts), **arguments).images
            seconds = (time.perf_counter() - begin) / len(prompts)
        pictures = (np.asarray(drawn) * 255).round().astype(np.uint8)
        default = pictures if setting.name == _DEFAULT else self.pictures(Setting(_DEFAULT, {}), start, len(prompts))
        kept = setting.name == _DEFAULT or start < _SHOWN
        return {
            "rows": np.full(len(prompts), rows / len(prompts)),
            "seconds": np.full(len(prompts), seconds),
            "features": features(pictures),
            "labels": predict(pictures),
            "sharpness": sharpness(pictures),
            "psnr": psnrs(pictures, default),
            **({"pictures": pictures} if kept else {}),
        }

    def pictures(self, setting: Setting, start: int, count: int) -> Pictures:
        """The pictures of a batch that was stored with them."""
        with np.load(self._out / setting.folder / f"{start:05}-{count}.npz") as stored:
            return np.asarray(stored["pictures"])

    def figures(
        self, found: Mapping[str, NDArray[Any]], default: Mapping[str, NDArray[Any]], seeds: float
    ) -> dict[str, float]:
        """The figures of a setting, compared with the default; ``seeds`` is the distance of other seeds."""
        mean, whole, _ = adherence(found["labels"], [stated_attributes(text) for text in self._prompts])
        distance = frechet_distance(found["features"], default["features"])
        return {
            "rows": float(found["rows"].mean()),
            "saved": float(1 - found["rows"].mean() / default["rows"].mean()),
            "seconds": float(np.median(found["seconds"])),
            "mean": mean,
            "whole": whole,
            "distance": distance,
            "of_seeds": distance / seeds,
            "sharpness": float(np.median(found["sharpness"]) / np.median(default["sharpness"])),
            "psnr": float(np.median(found["psnr"])),
        }

    def sheet(self, settings: Sequence[Setting]) -> Image.Image:
        """The first pictures of each setting, one setting a row."""
        count = min(_BATCH, len(self._prompts))
        rows = [[Image.fromarray(each) for each in self.pictures(setting, 0, count)[:_SHOWN]] for setting in settings]
        return contact_sheet(rows, rows=[setting.name for setting in settings]).picture


def _store(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the file whole, or not at all."""
    temporary = file.with_suffix(".part")
    with temporary.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **dict(arrays))
    temporary.replace(file)


def check_folder(out: Path, run: Mapping[str, Any]) -> None:
    """Write what is measured into the folder, or compare it with what was measured there before.

    Raises:
        SystemExit: it was something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    file, text = out / "run.json", json.dumps(run, sort_keys=True)
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{out} holds another measurement: {file.read_text(encoding='utf-8')}; give another folder")
    file.write_text(text, encoding="utf-8")


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as a table in Markdown."""
    lines = [
        "| setting | rows | saved | s a picture | whole | distance | of seeds | sharpness | PSNR |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in figures.items():
        psnr = "" if name in (_DEFAULT, _OTHER_SEEDS) else f"{each['psnr']:.1f}"
        lines.append(
            f"| {name} | {each['rows']:.0f} | {each['saved']:.0%} | {each['seconds']:.2f} | {each['whole']:.1%} "
            f"| {each['distance']:.3f} | {each['of_seeds']:.2f} | {each['sharpness']:.2f} | {psnr} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the options ask for, print the table, and write figures and the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is measured")
    parser.add_argument("--pictures", type=int, default=2000, help="of each setting")
    parser.add_argument("--base", type=json.loads, default={}, metavar="JSON", help="arguments of all settings")
    parser.add_argument("--setting", type=json.loads, action="append", default=[], metavar="JSON")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args(argv)
    check_folder(arguments.out, {"model": arguments.model, "base": arguments.base, "precision": arguments.precision})
    pipe = Pipeline.from_pretrained(arguments.model, precision=arguments.precision)
    measurement = Measurement(pipe, arguments.out, arguments.base, arguments.pictures)
    settings = [
        Setting(_DEFAULT, {}),
        Setting(_OTHER_SEEDS, {}, _FIRST_OTHER_SEED),
        *(Setting(name_of(each), each) for each in arguments.setting or SETTINGS),
    ]
    found = {setting.name: measurement.measure(setting) for setting in settings}
    default = found[_DEFAULT]
    seeds = frechet_distance(found[_OTHER_SEEDS]["features"], default["features"])
    figures = {name: measurement.figures(each, default, seeds) for name, each in found.items()}
    record = {"model": arguments.model, "base": arguments.base, "pictures": arguments.pictures, "settings": figures}
    record["machine"] = machine.describe()
    (arguments.out / "figures.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    measurement.sheet(settings).save(arguments.out / "sheet.png")
    print(table(figures))


if __name__ == "__main__":
    main()
