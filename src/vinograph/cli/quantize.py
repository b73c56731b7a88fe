"""The command ``quantize``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vinograph.cli import options, output, progress
from vinograph.cli.inspect import describe_speed
from vinograph.cli.options import AsJson


def quantize(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="a bundle or a checkpoint: its directory, its file, a name, or a hub id"),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the directory to write")],
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            metavar="M",
            help="weights: int8 weights alone; mixed: convolutions with int8 activations, too; "
            "full: linear layers as well",
        ),
    ],
    vae: options.Vae = None,
    base: options.Base = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help="calibration prompts, one on each line; default: built-in ones"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an existing bundle, once the new one is complete")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a smaller, faster bundle of a model.

    A checkpoint gives the same result as its converted bundle. This needs NNCF:
    pip install "vinograph[quantize]". If the command is stopped, running it again resumes the work.
    """
    from vinograph.quantize import quantize as run

    with progress.stages() as show:
        written = run(source, out, mode=mode, vae=vae, base=base, prompts=prompts, overwrite=overwrite, progress=show)
    manifest = written.manifest
    for note in manifest.notes:
        output.warn(note)
    quantization = manifest.quantization
    assert quantization is not None
    if as_json:
        output.print_json(
            {
                "path": str(written.path),
                "name": manifest.name,
                "family": manifest.family,
                "size": written.size,
                "components": {
                    name: {"weights": each.weights, "activations": each.activations}
                    for name, each in manifest.components.items()
                },
                "quantization": {**json.loads(manifest.to_json())["quantization"], "ratio": quantization.speed.ratio},
            }
        )
    else:
        output.say(f"{written.path}  {manifest.name}, {manifest.family}, {mode}, {output.size(written.size)}")
        output.say(describe_speed(quantization.speed))
        output.say(f"draw with it: vinograph generate PROMPT --model {written.path}")
    if quantization.speed.ratio <= 1:
        output.warn(
            f"on this machine it isn't faster than {source}, which loses nothing: draw with that, or try another --mode"
        )
