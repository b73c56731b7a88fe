"""The command ``check``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vinograph.cli import completion, options, output, progress
from vinograph.cli.benchmark import parsed_pairs
from vinograph.cli.options import MODEL_HELP, PRECISION, AsJson, flags
from vinograph.errors import ModelError, RequestError
from vinograph.images import check_output, save

if TYPE_CHECKING:
    pass

_DIFFUSERS = "diffusers"
_MODELS = completion.completing(completion.models)


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=_MODELS)],
    against: Annotated[
        str, typer.Option("--against", metavar="CHECKPOINT", help="what to compare with, such as what it was made from")
    ],
    system: Annotated[
        str | None,
        typer.Option(
            "--with", metavar="diffusers", help="what draws the reference; default: Vinograph, opening it directly"
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            "--python", metavar="PATH", help="the interpreter of an environment with diffusers; default: ours"
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option("--prior", metavar="DIR", help="Würstchen with diffusers: the prior's checkpoint, if separate"),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="T", help="what to draw; may be repeated")
    ] = None,
    seed: Annotated[str, typer.Option("--seed", metavar="S", help="the seed of each prompt's first picture")] = "7",
    count: Annotated[str, typer.Option("--count", metavar="N", help="pictures of each prompt, from S up")] = "1",
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="width and height in pixels; default: the model's own")
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="N", help="denoising steps of the text-conditional stage")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="an argument of the drawing call; may be repeated"),
    ] = None,
    precision: Annotated[str, typer.Option("--precision", metavar="P", help=f"of the model: {PRECISION.help}")] = "f32",
    bound: Annotated[
        float | None,
        typer.Option(
            "--bound",
            metavar="DB",
            min=0,
            help="the least PSNR; default: 30, and 20 for low-bit weights or another precision than f32",
        ),
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option(*flags("output"), metavar="FILE", help="a picture of both, and of their difference amplified"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a model draws what a checkpoint draws.

    Both draw the same prompts from the same seeds, one after the other. The reference computes in
    f32. Prints the largest and the mean difference in 1/255, and the PSNR. The exit code is 3 if a
    picture's PSNR is below the bound.
    """
    from vinograph.benchmark import PROMPTS
    from vinograph.benchmark import check as checking

    if system not in (None, _DIFFUSERS) or (system is None and (python or prior)):
        raise RequestError(
            "--with takes diffusers; without it, Vinograph opens the checkpoint, and --python has no use"
        )
    if output_file is not None:
        check_output(output_file)
    extra = parsed_pairs("--option", option)

    config = checking.CheckConfig(
        model=model,
        against=against,
        arguments=options.arguments_with(extra, {"size": size, "steps": steps, "seed": seed}),
        prompts=prompt or PROMPTS[:1],
        seed=options.seed_of(seed),
        count=options.count_of(count),
        precision=options.per_component(precision),
        python=None if system is None else (python or sys.executable).removeprefix(f"{_DIFFUSERS}="),
        prior=prior,
        bound=bound,
    )
    with progress.items("drawing") as show:
        comparison = checking.check(config, show)
    if output_file is not None:
        save(comparison.picture(), output_file)
    _show(comparison.record, output_file, as_json=as_json)
    if not comparison.agrees:
        raise typer.Exit(ModelError.exit_code)


def _show(record: dict[str, Any], file: Path | None, *, as_json: bool) -> None:
    agrees, bound = record["agrees"], record["bound"]
    if as_json:
        output.print_json({**record, "file": None if file is None else str(file)})
    else:
        rows = [
            [each["prompt"], str(each["seed"]), str(each["max"]), f"{each['mean']:.3f}", _decibels(each["psnr"])]
            for each in record["pictures"]
        ]
        output.table(["prompt", "seed", "largest", "mean", "PSNR"], rows)
        if file is not None:
            output.say(f"{file}: {record['model']}, {record['against']}, their difference x {record['amplified']}")
        verdict = "draws what" if agrees else "does NOT draw what"
        output.say(f"{record['model']} {verdict} {record['against']} draws, by a bound of {bound:g} dB")
    if not agrees:
        output.note(f"a picture's PSNR is below {bound:g} dB; differences are in 1/255 of the brightness")


def _decibels(value: float) -> str:
    return "equal" if value == float("inf") else f"{value:.1f} dB"
