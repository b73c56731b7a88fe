"""The command ``serve``."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from vinograph.cli import options, output
from vinograph.cli.options import DEVICE, PRECISION, AsJson

Texts = list[str] | None


def _repeated(name: str, metavar: str, about: str) -> Any:
    return typer.Option(name, metavar=metavar, help=f"{about}; may be repeated", show_default=False)


def serve(
    model: Annotated[
        Texts,
        _repeated("--model", "[NAME=]REF", f"offer a model, the first by default: {options.MODEL_HELP}"),
    ] = None,
    alias: Annotated[Texts, _repeated("--alias", "NAME=MODEL", "another name by which clients may ask for it")] = None,
    strict_models: Annotated[
        bool, typer.Option("--strict-models", help="refuse unknown model names instead of using the first model")
    ] = False,
    host: Annotated[
        str | None, typer.Option("--host", metavar="H", help="the address to listen at; default: 127.0.0.1")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", help="the port to listen at, 0 for any that is free; default: 8080"),
    ] = None,
    api_key: Annotated[
        Texts, _repeated("--api-key", "KEY", "ask clients for a key; other users of this machine can see the option")
    ] = None,
    api_key_file: Annotated[
        str | None, typer.Option("--api-key-file", metavar="FILE", help="a file with a key on each line")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="let other machines draw without a key, where --host allows them in")
    ] = False,
    allowed_host: Annotated[
        Texts, _repeated("--allowed-host", "NAME", "another name of the server, such as a reverse proxy's")
    ] = None,
    allowed_origin: Annotated[
        Texts, _repeated("--allowed-origin", "ORIGIN", "web pages that may use the server, as https://example.org")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="a TOML file of settings; see docs/serving.md")
    ] = None,
    limit: Annotated[
        Texts,
        _repeated("--limit", "NAME=VALUE", "change a limit, such as queue=8; --check shows them all"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="print the settings that hold and where each comes from, and end")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS|auto|local", help="draw on a Ray cluster; see docs/serve-ray.md"),
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option("--replicas", metavar="MIN-MAX", help="with --ray: how many draw at the same time; default: 1"),
    ] = None,
    replica_cpus: Annotated[
        int | None,
        typer.Option("--replica-cpus", metavar="N", help="with --ray: processors of each; default: all of a node"),
    ] = None,
    replica_memory: Annotated[
        int | None,
        typer.Option("--replica-memory", metavar="BYTES", help="with --ray: memory of each; default: by the models"),
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="serve the web page, too")] = False,
    gallery: Annotated[
        str | None,
        typer.Option(
            "--gallery", metavar="DIR", help="with --page: keep its pictures in this folder, for all visitors"
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            "--grace", metavar="SECONDS", help="time for the drawing under way when the server ends; default: 30"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="D", help=f"{DEVICE.help}; default: {DEVICE.default}")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="P", help=f"{PRECISION.help}; default: {PRECISION.default}")
    ] = None,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="write the request, with its prompt, into every picture")
    ] = False,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="write prompts into the log")] = False,
    log_format: Annotated[
        str | None, typer.Option("--log-format", metavar="text|json", help="the log's format; default: text")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve OpenAI's images API and AUTOMATIC1111's API for programs.

    Options come before environment variables, these before the file of --config. This needs the
    extra serve: pip install "vinograph[serve]".
    """
    given = {
        "models": model,
        "aliases": alias,
        "strict_models": strict_models or None,
        "host": host,
        "port": port,
        "api_keys": api_key,
        "api_key_file": api_key_file,
        "no_auth": no_auth or None,
        "allowed_hosts": allowed_host,
        "allowed_origins": allowed_origin,
        "config": config,
        "limits": limit,
        "page": page or None,
        "gallery": gallery,
        "grace": grace,
        "ray.address": ray,
        "ray.replicas": replicas,
        "ray.cpus": replica_cpus,
        "ray.memory": replica_memory,
        "device": None if device is None else options.per_component(device),
        "precision": None if precision is None else options.per_component(precision),
        "metadata": metadata or None,
        "log_prompts": log_prompts or None,
        "log_format": log_format,
    }
    _serve({key: value for key, value in given.items() if value is not None and value != []}, check, as_json)


def _serve(given: dict[str, Any], check: bool, as_json: bool) -> None:
    from vinograph.serve import configuration_sources, run

    effective = configuration_sources.load(given, os.environ, options.DEFAULT_MODEL)
    if not check:
        run(effective.configuration, effective.warnings, output.note, output.warn)
        return
    for each in effective.warnings:
        output.warn(each)
    records = configuration_sources.records(effective)
    if as_json:
        output.print_json({key: {"value": value, "source": source} for key, value, source in records})
    else:
        output.table(("setting", "value", "source"), [(key, str(value), source) for key, value, source in records])
