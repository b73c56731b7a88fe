"""Assembles the commands into one application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

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
    tune,
    web,
)

_ABOUT = "Text to image with OpenVINO. Each command says what it takes: vinograph generate --help"
_WIDTH = 100


_COMMANDS: Mapping[str, Callable[[], Callable[..., Any]]] = {
    "generate": generate.GENERATE.function,
    "reconstruct": generate.RECONSTRUCT.function,
    "batch": batch.BATCH.function,
    "pull": lambda: pull.pull,
    "convert": lambda: convert.convert,
    "quantize": lambda: quantize.quantize,
    "tune": lambda: tune.tune,
    "benchmark": lambda: benchmark.benchmark,
    "check": lambda: check.check,
    "adapters": lambda: adapters.adapters,
    "inspect": lambda: inspect.inspect,
    "verify": lambda: inspect.verify,
    "models": lambda: inspect.models,
    "devices": lambda: inspect.devices,
    "doctor": lambda: doctor.doctor,
    "cache": lambda: cache.cache,
    "web": lambda: web.web,
    "serve": lambda: serve.serve,
}


def application(first: str | None = None) -> typer.Typer:
    """The command line; its drawing commands have the options of all families.

    If ``first``, the first word of a command line, is a command, the application has this command
    alone: to lay out the options of all takes a tenth of a second.
    """
    app = typer.Typer(
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=_ABOUT,
        context_settings={"max_content_width": _WIDTH, "help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    for name in _COMMANDS if first is None or first not in _COMMANDS else [first]:
        app.command(name)(_COMMANDS[name]())
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
