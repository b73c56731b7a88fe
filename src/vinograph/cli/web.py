"""The command ``web``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vinograph.cli import options, output
from vinograph.cli.completion import completing, models
from vinograph.cli.options import DEVICE

_PORT = 7860


def web(
    model: Annotated[
        list[str] | None,
        typer.Option(
            *options.flags("model"),
            metavar="REF",
            help=f"also offer: {options.MODEL_HELP}; may be repeated",
            autocompletion=completing(models),
        ),
    ] = None,
    vae: options.Vae = None,
    base: options.Base = None,
    device: Annotated[str, typer.Option("--device", metavar="D", help=DEVICE.help)] = "CPU",
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="H",
            help="the address to listen at; any but a loopback address lets other machines connect",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="the port to listen at")] = _PORT,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            help="another name that visitors may reach the page by, such as a reverse proxy's; may be repeated",
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            "--gallery",
            metavar="DIR",
            help="keep all pictures in this folder, and show it to all visitors; default: kept until a page is closed",
        ),
    ] = None,
) -> None:
    """Serve a web page for drawing pictures.

    It offers the embedded models, those in the models folder, and each --model, which --base and
    --vae complete. This needs Gradio: pip install "vinograph[web]".
    """
    from vinograph.web import serve

    sources = options.named_sources(vae, base)
    models = dict.fromkeys(model or [options.DEFAULT_MODEL], sources)
    serve(models, options.per_component(device), host, port, output.note, output.warn, allowed_host or (), gallery)
