"""The command ``tune``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vinograph.cli import options, output, progress
from vinograph.cli.benchmark import parsed_pairs
from vinograph.cli.inspect import Reference
from vinograph.cli.options import PRECISION, AsJson
from vinograph.errors import RequestError

if TYPE_CHECKING:
    from vinograph.runtime.cache import Cache
    from vinograph.runtime.tuning import Shapes
    from vinograph.tune import ComponentTuning

_THREADS = "threads"


def tune(
    model: Reference,
    vae: options.Vae = None,
    base: options.Base = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="width and height in pixels; default: the model's native size"),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps", metavar="N", help="denoising steps of the text-conditional stage; default: 1, which is enough"
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="an argument of the drawing call, such as vae=full or guidance_scale=1.0; may be repeated",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", metavar="T", help="a text as long as the drawings' will be; default: one of about 16 tokens"
        ),
    ] = None,
    count: Annotated[
        str | None, typer.Option("--count", metavar="N", help="pictures that are drawn at once; default: 1")
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option("--component", metavar="NAME", help="measure this component; may be repeated; default: all"),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            options.flag(_THREADS), metavar="N", help="measure for the processes of batch --threads N; default: all"
        ),
    ] = None,
    precision: Annotated[str, typer.Option("--precision", metavar="P", help=PRECISION.help)] = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure which of OpenVINO's settings are the fastest for a model's int8 and int4 weights.

    Each setting of each such component is timed on this machine's CPU. The fastest one is kept, and
    drawings from then on use it, also at sizes up to four times as large or small. Settings round
    differently, so that a seed draws a slightly different picture afterwards. No drawing measures
    by itself. `vinograph cache` shows what is kept.
    """
    from vinograph.models import catalog
    from vinograph.runtime.cache import Cache
    from vinograph.tune import TuningRequest
    from vinograph.tune import tune as measure

    _share_processors(options.whole_number(_THREADS, threads))
    extra = {**({} if prompt is None else {"prompt": prompt}), **parsed_pairs("--option", option)}
    request = TuningRequest(
        arguments=options.arguments_with(extra, {"size": size, "steps": steps, "count": count}),
        precision=options.per_component(precision),
        components=component or (),
    )
    cache = Cache()
    with progress.items("measuring") as show:
        found = measure(catalog.find(model, options.named_sources(vae, base)), request, show, cache)
    _show(found, cache, model, as_json=as_json)


def _share_processors(threads: int | None) -> None:
    """Compute with so many threads, as a process of a batch does.

    Raises:
        RequestError: there are not so many processors.
    """
    from vinograph.resources import cpu_count, share_processors

    if threads is None:
        return
    if threads > cpu_count():
        raise RequestError(f"{options.flag(_THREADS)} is {threads}; give at most {cpu_count()}, the processors here")
    share_processors(threads)


def _machine() -> dict[str, Any]:
    from vinograph.resources import cpu_count
    from vinograph.runtime.devices import processor

    return {"processor": processor(), "cores": cpu_count()}


def _show(found: Sequence[ComponentTuning], cache: Cache, model: str, *, as_json: bool) -> None:
    warnings = cache.take_warnings()
    if as_json:
        record = {"model": model, "folder": str(cache.folder), **_machine()}
        output.print_json({**record, "components": [_record(each) for each in found], "warnings": warnings})
    else:
        output.table(["component", "setting", "a call", ""], [row for each in found for row in _rows(each)])
        cores = _machine()["cores"]
        on = "one core" if cores == 1 else f"{cores} cores"
        output.say(f"kept in {cache.folder}: drawings of about this size on {on} use it")
    for warning in warnings:
        output.warn(warning)


def _rows(measured: ComponentTuning) -> list[list[str]]:
    """A row for each setting that was tried."""
    kept = measured.result.setting
    marks = {measured.fastest: "fastest"}
    marks[kept] = "fastest, kept" if kept == measured.fastest else "kept"
    if len(measured.result.seconds) == 1:
        marks[kept] = "kept: too short a call to gain by another"
    return [
        [measured.component if number == 0 else "", str(setting), _duration(seconds), marks.get(setting, "")]
        for number, (setting, seconds) in enumerate(measured.result.seconds.items())
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _record(measured: ComponentTuning) -> dict[str, Any]:
    return {
        "component": measured.component,
        "shapes": _shapes(measured.shapes),
        "seconds": {str(setting): seconds for setting, seconds in measured.result.seconds.items()},
        "fastest": str(measured.fastest),
        "kept": str(measured.result.setting),
        "measuring_seconds": measured.result.measuring_seconds,
    }


def _shapes(shapes: Shapes) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}
