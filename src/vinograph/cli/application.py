"""The commands, put together."""

from __future__ import annotations

import typer

from vinograph.cli import benchmarking, caching, converting, doctor, drawing, looking, pulling, quantizing, serving

_ABOUT = "Text to image with OpenVINO. Each command says what it takes: vinograph generate --help"
_WIDTH = 100


def application() -> typer.Typer:
    """The command line, whose drawing commands take what the families that are there take."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=_ABOUT,
        context_settings={"max_content_width": _WIDTH},
    )
    app.command("generate")(drawing.GENERATE.function())
    app.command("reconstruct")(drawing.RECONSTRUCT.function())
    app.command("pull")(pulling.pull)
    app.command("convert")(converting.convert)
    app.command("quantize")(quantizing.quantize)
    app.command("benchmark")(benchmarking.benchmark)
    app.command("inspect")(looking.inspect)
    app.command("verify")(looking.verify)
    app.command("models")(looking.models)
    app.command("devices")(looking.devices)
    app.command("doctor")(doctor.doctor)
    app.command("cache")(caching.cache)
    app.command("web")(serving.web)
    return app
