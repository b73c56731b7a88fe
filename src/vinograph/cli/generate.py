"""The commands ``generate`` and ``reconstruct``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph.cli import options, output, progress
from vinograph.cli.options import (
    AS_JSON,
    BASE,
    DEVICE,
    MEMORY,
    MODEL,
    PRECISION,
    SEED,
    SIZE,
    DrawingCommand,
    Option,
)
from vinograph.errors import RequestError
from vinograph.families.contract import Step
from vinograph.images import WRITABLE, check_output, save

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline
    from vinograph.request import GivenArguments
    from vinograph.result import Result

_OUTPUT = f"the picture to write, ending in {', '.join(WRITABLE)}; one that exists is replaced"
_NOT_ARGUMENTS = (
    "prompt",
    "picture",
    "model",
    "base",
    "output",
    "device",
    "precision",
    "memory",
    "no_metadata",
    AS_JSON.name,
)


def generate(values: Mapping[str, Any]) -> None:
    """Draw pictures from a text.

    With --image they start from a picture. A PNG carries its request, seed, model and versions.
    """
    files = _numbered(Path(values["output"]), options.count_of(values["count"]))
    for file in files:
        check_output(file)
    pipe = _open(values)
    result = _draw(pipe, "generate", values["prompt"], options.arguments(pipe, "generate", _optional(values)))
    for index, (picture, file) in enumerate(zip(result.images, files, strict=True)):
        save(picture, file, None if values["no_metadata"] else result.metadata(index))
    _report(result, files, as_json=values[AS_JSON.name])


def reconstruct(values: Mapping[str, Any]) -> None:
    """Encode a picture and decode it again.

    Prints the PSNR, and how much smaller the encoded picture is.
    """
    file = Path(values["output"])
    check_output(file)
    pipe = _open(values)
    if "reconstruct" not in pipe.calls:
        family, name = pipe.model.manifest.family, pipe.model.manifest.name
        raise RequestError(f"{name} can't reconstruct: models of the family {family} do {', '.join(pipe.calls)}")
    result = _draw(pipe, "reconstruct", values["picture"], options.arguments(pipe, "reconstruct", _optional(values)))
    save(result.images[0], file)
    _report(result, [file], as_json=values[AS_JSON.name])


def _draw(pipe: Pipeline, call: str, subject: str, arguments: GivenArguments) -> Result:
    """Run ``call`` on ``subject`` and show its steps; an interruption ends it after a step."""
    from vinograph.pipeline import stream_given

    with_subject = dataclasses.replace(arguments, values={pipe.calls[call].positional[0]: subject, **arguments.values})
    result = None
    with progress.stages() as show, closing(stream_given(pipe, call, with_subject)) as steps:
        for each in steps:
            if isinstance(each, Step):
                show(each.stage, each.index, each.total)
            else:
                result = each
    assert result is not None
    return result


def _open(values: Mapping[str, Any]) -> Pipeline:
    from vinograph.pipeline import Pipeline  # imports OpenVINO, which --help doesn't need

    device, precision = options.per_component(values["device"]), options.per_component(values["precision"])
    sources = options.sources(values)
    return Pipeline.from_pretrained(
        values["model"], device=device, precision=precision, memory=values["memory"], **sources
    )


def _optional(values: Mapping[str, Any]) -> dict[str, str | None]:
    not_arguments = (*_NOT_ARGUMENTS, *options.sources(values))
    return {name: value for name, value in values.items() if name not in not_arguments}


def _numbered(file: Path, count: int) -> list[Path]:
    """``file`` for one picture; a-1.png, a-2.png, … for several."""
    if count == 1:
        return [file]
    return [file.with_name(f"{file.stem}-{index}{file.suffix}") for index in range(1, count + 1)]


def _report(result: Result, files: list[Path], *, as_json: bool) -> None:
    for warning in result.warnings:
        output.warn(warning)
    seeds = result.seeds or (None,) * len(files)
    if as_json:
        output.print_json(
            {
                "model": result.model,
                "images": [{"file": str(file), "seed": seed} for file, seed in zip(files, seeds, strict=True)],
                "request": result.request.record(),
                "seconds": result.timings,
                "devices": result.devices,
                "report": result.report,
                "warnings": result.warnings,
            }
        )
        return
    for file, seed in zip(files, seeds, strict=True):
        output.say(str(file) if seed is None else f"{file}  seed {seed}")
    for name, value in result.report.items():
        output.say(_MEASURES.get(name, f"{name} {{:g}}").format(value))
    output.say(", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.timings.items()))


_MEASURES = {
    "psnr": "PSNR {:.2f} dB",
    "spatial_compression": "{:.1f} times smaller in each direction",
    "values_compression": "{:.0f} times fewer values",
}

GENERATE = DrawingCommand(
    "generate",
    Option("prompt", "PROMPT", "what to draw; an empty text draws the model's unconditional picture"),
    [
        MODEL,
        BASE,
        Option("output", "FILE", _OUTPUT, "picture.png"),
        SIZE,
        Option("steps", "N", "denoising steps of the text-conditional stage; default: the model's own"),
        Option("guidance_scale", "G", "guidance scale of that stage; 1 and below turn guidance off"),
        Option("negative_prompt", "T", "what should not be in the picture; takes effect under guidance"),
        SEED,
        Option("count", "N", "pictures to draw; with 3, a.png becomes a-1.png, a-2.png and a-3.png"),
        Option("image", "FILE", "a PNG, JPEG or WebP picture to start from"),
        Option("strength", "X", "how much to change that picture, above 0 and up to 1"),
        DEVICE,
        PRECISION,
        MEMORY,
        Option("no_metadata", None, "leave request, seed, model and versions out of the PNG"),
    ],
    generate,
)

RECONSTRUCT = DrawingCommand(
    "reconstruct",
    Option("picture", "IMAGE", "a PNG, JPEG or WebP picture"),
    [
        MODEL,
        BASE,
        Option("output", "FILE", _OUTPUT, "reconstruction.png"),
        SIZE,
        SEED,
        DEVICE,
        PRECISION,
        MEMORY,
    ],
    reconstruct,
)
