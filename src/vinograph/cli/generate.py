"""The commands ``generate`` and ``reconstruct``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph.cli import adapters, again, options, progress, prompts
from vinograph.cli.batches import Batch, Batches
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
    TUNE,
    DrawingCommand,
    Option,
)
from vinograph.cli.picture_files import PictureFiles, save_result
from vinograph.cli.report import Report
from vinograph.errors import RequestError
from vinograph.families.contract import Step
from vinograph.images import WRITABLE, save

if TYPE_CHECKING:
    from PIL import Image

    from vinograph.pipeline import Pipeline
    from vinograph.request import GivenArguments
    from vinograph.result import Result

_PICTURE, _RECONSTRUCTION = "picture.png", "reconstruction.png"
_OUTPUT = f"the picture to write, ending in {', '.join(WRITABLE)}; replaces one; default: {{}}, or a free number"
_PROMPT = (
    "what to draw; an empty text draws the model's unconditional picture; @FILE: each line of a file, without blank "
    "lines and those that begin with #; -: each line of standard input"
)
_NOT_ARGUMENTS = (
    *("prompt", "picture", "again", "model", "output", "device", "precision", "memory", "no_metadata"),
    *(ADAPTER.name, BASE.name, EMBEDDING.name, TUNE.name, AS_JSON.name),
)


def generate(values: Mapping[str, Any]) -> None:
    """Draw pictures from a text, or from each line of a list.

    With --image they start from a picture. Each picture is written as soon as it is drawn. It carries
    its request, seed, model and versions, and the text "parameters" that A1111 writes. With --again a
    picture is drawn again from either.
    """
    recipe = _recipe(values)
    listed, count = prompts.read_prompts(values["prompt"]), options.count_of(values["count"])
    files = PictureFiles(values["output"], _PICTURE, len(listed) * count)
    files.check(kept=values["again"])
    found = _files_of(values, recipe)
    pipe = _open(values, recipe, found)
    notes = [*_assumed(pipe), *found.warnings]
    given = options.arguments(pipe, "generate", _optional(values))
    if recipe is not None:
        given, not_followed = again.with_recipe(pipe, recipe, given)
        notes += not_followed
    batches = Batches(pipe, given, listed, count)
    batches.check()
    report = Report(as_json=values[AS_JSON.name])
    report.warn(*notes)
    try:
        for batch in batches:
            with batch.prompt.naming():
                result = _draw(pipe, "generate", batch.given, batch.label)
            report.warn(*map(batch.prompt.named, result.warnings))
            report.warn(*(again.computed_otherwise(recipe, result) if recipe is not None else []))
            _write(pipe, result, batch, files, report, with_texts=not values["no_metadata"])
    except BaseException:
        report.cut_short(len(listed) * count)
        raise
    report.end(batches.whole)


def _write(
    pipe: Pipeline, result: Result, batch: Batch, files: PictureFiles, report: Report, *, with_texts: bool
) -> None:
    """Write the pictures of one call, and report each."""
    for index, picture in enumerate(result.images):

        def save_as(file: Path, replace: bool, index: int = index, picture: Image.Image = picture) -> None:
            if with_texts:
                report.warn(*save_result(pipe, result, index, picture, file, replace=replace))
            else:
                save(picture, file, replace=replace)

        report.add(files.write(save_as), result, index, batch.prompt)
    report.add_seconds(result)


def _assumed(pipe: Pipeline) -> list[str]:
    """What was concluded about a checkpoint that is opened as it is; a conversion says so at once."""
    from vinograph.models.bundle import Bundle

    return [] if isinstance(pipe.model, Bundle) else [*pipe.model.manifest.notes]


def _recipe(values: Mapping[str, Any]) -> again.FileRecipe | None:
    """What --again reads, if it is given; without it there has to be a prompt."""
    if values["again"] is not None:
        return again.read_recipe(values["again"])
    if values["prompt"] is None:
        raise RequestError(
            "there is no prompt: give what to draw (an empty text is fine), or a picture to draw again (--again FILE). "
            "vinograph generate --help lists the options"
        )
    return None


def reconstruct(values: Mapping[str, Any]) -> None:
    """Encode a picture and decode it again.

    Prints the PSNR, and how much smaller the encoded picture is.
    """
    files = PictureFiles(values["output"], _RECONSTRUCTION, 1)
    files.check()
    pipe = _open(values)
    if "reconstruct" not in pipe.calls:
        family, name = pipe.model.manifest.family, pipe.model.manifest.name
        raise RequestError(f"{name} can't reconstruct: models of the family {family} do {', '.join(pipe.calls)}")
    given = options.arguments(pipe, "reconstruct", _optional(values))
    subject = {pipe.calls["reconstruct"].positional[0]: values["picture"]}
    result = _draw(pipe, "reconstruct", dataclasses.replace(given, values={**subject, **given.values}))
    report = Report(as_json=values[AS_JSON.name])
    report.warn(*result.warnings)
    report.add(files.write(lambda file, replace: save(result.images[0], file, replace=replace)), result, 0)
    report.add_seconds(result)
    report.end(lambda request: request)


def _draw(pipe: Pipeline, call: str, arguments: GivenArguments, label: str = "") -> Result:
    """Run ``call`` and show its steps; an interruption ends it after a step.

    ``label`` says which of several calls it is.
    """
    from vinograph.pipeline import stream_given

    result = None
    with progress.stages(label) as show, closing(stream_given(pipe, call, arguments)) as steps:
        for each in steps:
            if isinstance(each, Step):
                show(each.stage, each.index, each.total)
            else:
                result = each
    assert result is not None
    return result


def _files_of(values: Mapping[str, Any], recipe: again.FileRecipe | None) -> again.RecipeFiles:
    """The adapters and learned words that drew the ``recipe``'s picture, of kinds that no option gives."""
    if recipe is None:
        return again.RecipeFiles()
    return again.files_of(recipe, adapters=not values[ADAPTER.name], embeddings=not values[EMBEDDING.name])


def _open(
    values: Mapping[str, Any], recipe: again.FileRecipe | None = None, found: again.RecipeFiles | None = None
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
            tune=values[TUNE.name],
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


GENERATE = DrawingCommand(
    "generate",
    Option("prompt", "PROMPT", _PROMPT),
    [
        Option("model", "REF", f"{MODEL_HELP}; default: {DEFAULT_MODEL}, with --again the picture's own"),
        BASE,
        Option("output", "FILE", _OUTPUT.format(_PICTURE)),
        SIZE,
        Option("steps", "N", "denoising steps of the text-conditional stage; default: the model's own"),
        Option("guidance_scale", "G", "guidance scale of that stage; 1 and below turn guidance off"),
        Option("negative_prompt", "T", "what should not be in the picture; takes effect under guidance"),
        SEED,
        Option("count", "N", "pictures of each prompt; with 3, a.png becomes a-1.png, a-2.png and a-3.png"),
        Option("image", "FILE", "a PNG, JPEG, WebP, AVIF, TIFF or GIF picture to start from"),
        Option("strength", "X", "how much to change that picture, above 0 and up to 1"),
        EMBEDDING,
        ADAPTER,
        DEVICE,
        PRECISION,
        MEMORY,
        TUNE,
        Option("again", "FILE", "draw this picture again from the texts in it; options given besides take precedence"),
        Option("no_metadata", None, "leave out the texts that say how the picture was drawn"),
    ],
    generate,
    subject_required=False,
)

RECONSTRUCT = DrawingCommand(
    "reconstruct",
    Option("picture", "IMAGE", "a PNG, JPEG, WebP, AVIF, TIFF or GIF picture"),
    [
        MODEL,
        BASE,
        Option("output", "FILE", _OUTPUT.format(_RECONSTRUCTION)),
        SIZE,
        SEED,
        DEVICE,
        PRECISION,
        MEMORY,
        TUNE,
    ],
    reconstruct,
)
