"""The command ``convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vinograph.cli import options, output, progress
from vinograph.cli.adapters import parsed
from vinograph.cli.options import ADAPTER_HELP, AsJson

if TYPE_CHECKING:
    from vinograph.models.bundle import Bundle


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="a checkpoint's directory, a single file of SDXL, or a hub id")
    ],
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="the directory to write")],
    prior: Annotated[
        str | None, typer.Option("--prior", metavar="SOURCE", help="Würstchen: another prior than the source's")
    ] = None,
    tiny_vae: Annotated[
        str | None,
        typer.Option("--tiny-vae", metavar="SOURCE", help="SDXL, PixArt: a tiny VAE to add to the model's own"),
    ] = None,
    vae: Annotated[str | None, typer.Option("--vae", metavar="SOURCE", help=options.VAE_HELP)] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="MODEL", help=options.BASE_HELP)] = None,
    image_encoder: Annotated[
        Path | None, typer.Option("--image-encoder", metavar="FILE", help="Würstchen: the image encoder's weights")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", metavar="FILE[:WEIGHT]", help=f"merge {ADAPTER_HELP}"),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="W",
            help="how weights are stored: f16, f32 (unchanged) or int8; PixArt's text encoder also int4",
        ),
    ] = "f16",
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="a branch, tag or commit of a hub repository")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an existing bundle, once the new one is complete")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a published checkpoint to a bundle.

    A bundle loads faster than the checkpoint, and draws the same picture. If the command is
    stopped, running it again resumes the work.
    """
    from vinograph.convert import convert as run

    with progress.items("converting") as show:
        written = run(
            source,
            bundle,
            prior=prior,
            tiny_vae=tiny_vae,
            vae=vae,
            base=base,
            image_encoder=image_encoder,
            adapters=parsed(adapter),
            weights=cast("Any", weights),  # convert checks it
            revision=revision,
            overwrite=overwrite,
            progress=show,
        )
    manifest = written.manifest
    for note in manifest.notes:
        output.warn(note)
    if as_json:
        output.print_json(record(written))
        return
    output.say(f"{written.path}  {manifest.name}, {manifest.family}, {output.size(written.size)}")
    output.say(f"draw with it: vinograph generate PROMPT --model {written.path}")


def record(written: Bundle) -> dict[str, Any]:
    """JSON record of a written bundle."""
    manifest = written.manifest
    return {
        "path": str(written.path),
        "name": manifest.name,
        "family": manifest.family,
        "size": written.size,
        "components": list(manifest.components),
        "notes": list(manifest.notes),
    }
