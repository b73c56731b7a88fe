"""Assembles the commands into one application."""

from __future__ import annotations

from typing import Annotated

import typer

from vinograph import __version__
from vinograph.cli import (
    adapters,
    batch,
    benchmark,
    cache,
    check,
    convert,
    doctor,
    generate,
    inspect,
    output,
    pull,
    quantize,
    serve,
    web,
)

_ABOUT = "Text to image with OpenVINO. Each command says what it takes: vinograph generate --help"
_WIDTH = 100


def application() -> typer.Typer:
    """The command line; its drawing commands have the options of all families."""
    app = typer.Typer(
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=_ABOUT,
        context_settings={"max_content_width": _WIDTH, "help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    app.command("generate")(generate.GENERATE.function())
    app.command("reconstruct")(generate.RECONSTRUCT.function())
    app.command("batch")(batch.BATCH.function())
    app.command("pull")(pull.pull)
    app.command("convert")(convert.convert)
    app.command("quantize")(quantize.quantize)
    app.command("benchmark")(benchmark.benchmark)
    app.command("check")(check.check)
    app.command("adapters")(adapters.adapters)
    app.command("inspect")(inspect.inspect)
    app.command("verify")(inspect.verify)
    app.command("models")(inspect.models)
    app.command("devices")(inspect.devices)
    app.command("doctor")(doctor.doctor)
    app.command("cache")(cache.cache)
    app.command("web")(web.web)
    app.command("serve")(serve.serve)
    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        output.say(f"vinograph {__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="print the version", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    del version  # its callback has ended the program
