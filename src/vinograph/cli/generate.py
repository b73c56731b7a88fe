"""The commands ``generate`` and ``reconstruct``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph import a1111
from vinograph.cli import adapters, again, options, output, progress
from vinograph.cli.options import (
    ADAPTER,
    AS_JSON,
    BASE,
    DEFAULT_MODEL,
    DEVICE,
    EMBEDDING,
    MEMORY,
    MODEL,
    MODEL_HELP,
    PRECISION,
    SEED,
    SIZE,
    DrawingCommand,
    Option,
)
from vinograph.errors import RequestError
from vinograph.families.contract import Step
from vinograph.images import WRITABLE, check_output, save
from vinograph.picture_texts import fits

if TYPE_CHECKING:
    from PIL import Image

    from vinograph.pipeline import Pipeline
    from vinograph.request import GivenArguments
    from vinograph.result import Result

_OUTPUT = f"the picture to write, ending in {', '.join(WRITABLE)}; one that exists is replaced"
_NOT_ARGUMENTS = (
    *("prompt", "picture", "again", "model", "output", "device", "precision", "memory", "no_metadata"),
    *(ADAPTER.name, BASE.name, EMBEDDING.name, AS_JSON.name),
)


def generate(values: Mapping[str, Any]) -> None:
    """Draw pictures from a text.

    With --image they start from a picture. A PNG carries its request, seed, model and versions, and any
    picture the text "parameters" that A1111 writes. With --again a picture is drawn again from either.
    """
    recipe = _recipe(values)
    files = _numbered(Path(values["output"]), options.count_of(values["count"]))
    for file in files:
        check_output(file)
        _check_kept(file, values["again"])
    found = _files_of(values, recipe)
    pipe = _open(values, recipe, found)
    notes = [*_assumed(pipe), *found.warnings]
    given = options.arguments(pipe, "generate", _optional(values))
    if values["prompt"] is not None:
        subject = pipe.calls["generate"].positional[0]
        given = dataclasses.replace(given, values={subject: values["prompt"], **given.values})
    if recipe is not None:
        given, not_followed = again.with_recipe(pipe, recipe, given)
        notes += not_followed
    result = _draw(pipe, "generate", given)
    result = dataclasses.replace(result, warnings=(*notes, *result.warnings))
    for index, (picture, file) in enumerate(zip(result.images, files, strict=True)):
        notes = _save(pipe, result, index, picture, file, with_texts=not values["no_metadata"])
        result = dataclasses.replace(result, warnings=(*result.warnings, *notes))
    _report(result, files, as_json=values[AS_JSON.name])


def _assumed(pipe: Pipeline) -> list[str]:
    """What was concluded about a checkpoint that is opened as it is; a conversion says so at once."""
    from vinograph.models.bundle import Bundle

    return [] if isinstance(pipe.model, Bundle) else [*pipe.model.manifest.notes]


def _recipe(values: Mapping[str, Any]) -> again.Recipe | None:
    """What --again reads, if it is given; without it there has to be a prompt."""
    if values["again"] is not None:
        return again.read_recipe(values["again"])
    if values["prompt"] is None:
        raise RequestError(
            "there is no prompt: give what to draw (an empty text is fine), or a picture to draw again (--again FILE). "
            "vinograph generate --help lists the options"
        )
    return None


def _check_kept(file: Path, source: str | None) -> None:
    """Refuse to replace the picture that --again reads."""
    if source is not None and file.exists() and file.samefile(source):
        raise RequestError(f"output {file} is the picture that --again reads; name another with --output")


def _save(
    pipe: Pipeline, result: Result, index: int, picture: Image.Image, file: Path, *, with_texts: bool
) -> list[str]:
    """Write a picture and its texts; returns what there was no room for."""
    if not with_texts:
        save(picture, file)
        return []
    metadata = result.metadata(index)
    parameters = a1111.parameters_text(metadata, pipe.options, pipe.model.manifest.scheduler)
    save(picture, file, metadata, parameters)
    if fits(WRITABLE[file.suffix.lower()], parameters):
        return []
    return [f"{file} has no room for so long a prompt: it doesn't say how it was drawn. Write a PNG instead"]


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
    given = options.arguments(pipe, "reconstruct", _optional(values))
    subject = {pipe.calls["reconstruct"].positional[0]: values["picture"]}
    result = _draw(pipe, "reconstruct", dataclasses.replace(given, values={**subject, **given.values}))
    save(result.images[0], file)
    _report(result, [file], as_json=values[AS_JSON.name])


def _draw(pipe: Pipeline, call: str, arguments: GivenArguments) -> Result:
    """Run ``call`` and show its steps; an interruption ends it after a step."""
    from vinograph.pipeline import stream_given

    result = None
    with progress.stages() as show, closing(stream_given(pipe, call, arguments)) as steps:
        for each in steps:
            if isinstance(each, Step):
                show(each.stage, each.index, each.total)
            else:
                result = each
    assert result is not None
    return result


def _files_of(values: Mapping[str, Any], recipe: again.Recipe | None) -> again.RecipeFiles:
    """The adapters and learned words that drew the ``recipe``'s picture, of kinds that no option gives."""
    if recipe is None:
        return again.RecipeFiles()
    return again.files_of(recipe, adapters=not values[ADAPTER.name], embeddings=not values[EMBEDDING.name])


def _open(
    values: Mapping[str, Any], recipe: again.Recipe | None = None, found: again.RecipeFiles | None = None
) -> Pipeline:
    """Open the model that --model names, else the one that drew the ``recipe``'s picture."""
    from vinograph.pipeline import Pipeline  # imports OpenVINO, which --help doesn't need

    used = found or again.RecipeFiles()

    def pipeline(model: str) -> Pipeline:
        return Pipeline.from_pretrained(
            model,
            device=options.per_component(values["device"]),
            precision=options.per_component(values["precision"]),
            memory=values["memory"],
            adapters={**used.adapters, **adapters.parsed(values.get(ADAPTER.name))},
            embeddings={**used.embeddings, **options.embeddings_of(values.get(EMBEDDING.name, ()))},
            **options.sources(values),
        )

    if recipe is None or values["model"] is not None:
        return pipeline(DEFAULT_MODEL if values["model"] is None else values["model"])
    name = again.model_of(recipe)
    with again.opening(recipe):
        return pipeline(name)


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
                "adapters": dict(result.adapters),
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
        Option("model", "REF", f"{MODEL_HELP}; default: {DEFAULT_MODEL}, with --again the picture's own"),
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
        EMBEDDING,
        ADAPTER,
        DEVICE,
        PRECISION,
        MEMORY,
        Option("again", "FILE", "draw this picture again from the texts in it; options given besides take precedence"),
        Option("no_metadata", None, "leave out the texts that say how the picture was drawn"),
    ],
    generate,
    subject_required=False,
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
