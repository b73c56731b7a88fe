"""Whether a model draws what a reference draws: the same prompts and seeds by both, compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vinograph import folders
from vinograph.benchmark import PROMPTS, Progress, processes
from vinograph.benchmark.cases import Arguments, BenchmarkCase, BenchmarkConfig, cases, reference
from vinograph.errors import ModelError, RequestError
from vinograph.images import psnr
from vinograph.models import catalog

EXACT_BOUND, REDUCED_BOUND = 30.0, 20.0
"""The least PSNR in decibels that is expected in f32, and of fewer bits."""
_DIFFUSERS = "diffusers"
_LOW_BITS = ("int8", "int4")
_MOST_AMPLIFIED = 64
_LABEL_HEIGHT = 20

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """What to compare.

    Attributes:
        model: the model that is checked: a name, path or hub id.
        against: the reference: another source, which is drawn with in f32.
        arguments: gives the arguments of the drawing call.
        prompts: what both draw.
        seed, count: each prompt is drawn from ``count`` seeds, from ``seed`` up.
        precision: what the model computes in.
        python: the interpreter of an environment with diffusers, which then draws the reference;
            None draws it with Vinograph.
        prior: the checkpoint of Würstchen's prior for diffusers, if it is separate.
        bound: the least PSNR in decibels; None for :data:`EXACT_BOUND` or :data:`REDUCED_BOUND`.
    """

    model: str
    against: str
    arguments: Arguments
    prompts: Sequence[str] = PROMPTS[:1]
    seed: int = 7
    count: int = 1
    precision: str | Mapping[str, str] = "f32"
    python: str | None = None
    prior: Path | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The pictures of both, by prompt, and ``record``, the results as JSON values."""

    record: dict[str, Any]
    model: Sequence[Pictures]
    reference: Sequence[Pictures]

    @property
    def agrees(self) -> bool:
        """Whether every picture is within the bound."""
        return bool(self.record["agrees"])

    def picture(self) -> Image.Image:
        """All pictures of both side by side, with their difference amplified."""
        labels = [self.record["model"], self.record["against"], f"difference x {self.record['amplified']}"]
        rows = [
            [one, other, amplified(one, other, self.record["amplified"])]
            for ones, others in zip(self.model, self.reference, strict=True)
            for one, other in zip(ones, others, strict=True)
        ]
        height, width = rows[0][0].shape[:2]
        sheet = Image.new("RGB", (3 * width, _LABEL_HEIGHT + len(rows) * height), "white")
        draw = ImageDraw.Draw(sheet)
        for column, label in enumerate(labels):
            draw.text((column * width + 4, 4), label.encode("ascii", "replace").decode(), "black")
            for row, pictures in enumerate(rows):
                place = (column * width, _LABEL_HEIGHT + row * height)
                sheet.paste(Image.fromarray(pictures[column]), place)
        return sheet


def check(config: CheckConfig, progress: Progress) -> Comparison:
    """Draw with the model and with the reference, each in a process of its own, and compare.

    Raises:
        RequestError: an option or an environment doesn't allow it, or the two are of different
            families or sizes.
        ModelError: a model can't be used, or one of the two fails to draw.
    """
    benchmark, against = _benchmark(config)
    model, *others = cases(benchmark)
    exact = others[0] if others else reference(benchmark, config.count)
    if exact.family != model.family:
        raise RequestError(
            f"--against {config.against} is a model of the family {exact.family}, and {config.model} of {model.family}"
        )
    # Both get all arguments alike, whatever defaults the reference has.
    exact = dataclasses.replace(exact, name=against, settings=model.settings, vae=model.vae)
    with folders.temporary("vinograph-check-") as folder:
        drawn, computed = [], []
        for number, (case, precision) in enumerate(((model, config.precision), (exact, "f32"))):
            progress(case.name, number * len(config.prompts), 2 * len(config.prompts))
            pictures, devices = _draw(case, benchmark, folder / str(number), precision)
            drawn.append(pictures)
            computed.append(devices)
        progress(exact.name, 2 * len(config.prompts), 2 * len(config.prompts))
    return _compared(config, (model, exact), drawn, computed)


def _benchmark(config: CheckConfig) -> tuple[BenchmarkConfig, str]:
    """The configuration of the two cases, and the reference's name."""
    benchmark = BenchmarkConfig(
        models=[config.model],
        arguments=config.arguments,
        prompts=config.prompts,
        seed=config.seed,
        counts=(config.count,),
    )
    name = Path(config.against).name
    if config.python is None:
        return dataclasses.replace(benchmark, reference=config.against), f"{name} in f32"
    checkpoint = folders.expand(config.against)
    if not folders.is_there(checkpoint / "model_index.json"):
        raise RequestError(
            f"--against {config.against}: diffusers draws from the directory of a checkpoint in its own layout, "
            "which has a model_index.json"
        )
    systems = {_DIFFUSERS: config.python}
    benchmark = dataclasses.replace(benchmark, against=(_DIFFUSERS,), pythons=systems, checkpoint=checkpoint)
    return dataclasses.replace(benchmark, prior=config.prior), f"{name} by {_DIFFUSERS}"


def _draw(
    case: BenchmarkCase, config: BenchmarkConfig, folder: Path, precision: Any
) -> tuple[list[Pictures], dict[str, str]]:
    """The pictures of each prompt, and what each component computed in."""
    folder.mkdir()
    task = case.task(config, config.prompts, folder, folder=str(folder), precision=precision)
    outcome = processes.run(case.python, ["draw", case.system], task)
    if outcome.failure is not None:
        raise ModelError(f"{case.name} could not draw: {outcome.failure}")
    events = outcome.events_named("drawn")
    return [np.load(each["file"]) for each in events], dict(events[-1]["computed"])


def _compared(
    config: CheckConfig,
    both: tuple[BenchmarkCase, BenchmarkCase],
    drawn: list[list[Pictures]],
    computed: list[dict[str, str]],
) -> Comparison:
    if drawn[0][0].shape != drawn[1][0].shape:
        sizes = [f"{pictures[0].shape[2]}x{pictures[0].shape[1]}" for pictures in drawn]
        raise RequestError(f"the pictures are of {sizes[0]} and {sizes[1]} pixels; give the size by --size WxH")
    rows = [
        {"prompt": prompt, "seed": config.seed + index, **distance(one, other)}
        for prompt, ones, others in zip(config.prompts, *drawn, strict=True)
        for index, (one, other) in enumerate(zip(ones, others, strict=True))
    ]
    exact = all("f32" in each.split() for each in computed[0].values()) and not _is_quantized(config.model)
    bound = config.bound if config.bound is not None else EXACT_BOUND if exact else REDUCED_BOUND
    largest = max(row["max"] for row in rows)
    record = {
        "model": both[0].name,
        "against": both[1].name,
        "settings": {**both[0].settings, **({} if both[0].vae is None else {"vae": both[0].vae})},
        "computed": dict(zip(("model", "against"), computed, strict=True)),
        "pictures": rows,
        "bound": bound,
        "agrees": all(row["psnr"] >= bound for row in rows),
        "amplified": max(1, min(_MOST_AMPLIFIED, 255 // max(1, int(largest)))),
    }
    return Comparison(record, *drawn)


def _is_quantized(model: str) -> bool:
    return any(each.weights in _LOW_BITS for each in catalog.find(model).manifest.components.values())


def distance(one: Pictures, other: Pictures) -> dict[str, float]:
    """Largest and mean difference of two pictures in 1/255, and their PSNR in decibels."""
    difference = np.abs(one.astype(np.int16) - other)
    return {"max": int(difference.max()), "mean": float(difference.mean()), "psnr": psnr(one / 255, other / 255)}


def amplified(one: Pictures, other: Pictures, factor: int) -> Pictures:
    """The difference of two pictures, times ``factor``; what exceeds 255 is cut off."""
    difference: Pictures = np.minimum(np.abs(one.astype(np.int32) - other) * factor, 255).astype(np.uint8)
    return difference
