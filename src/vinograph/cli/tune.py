"""The command ``tune``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vinograph.cli import adapters, options, output, progress
from vinograph.cli.options import ADAPTER, AS_JSON, BASE, MODEL_HELP, PRECISION, DrawingCommand, Option
from vinograph.errors import RequestError

if TYPE_CHECKING:
    from vinograph.runtime.tuning import Shapes
    from vinograph.tune import ComponentTuning

_COMPONENT, _PROMPT, _THREADS = "component", "prompt", "threads"
_NOT_ARGUMENTS = (ADAPTER.name, AS_JSON.name, BASE.name, PRECISION.name, "model", _COMPONENT, _PROMPT, _THREADS)


def tune(values: Mapping[str, Any]) -> None:
    """Measure which of OpenVINO's settings are the fastest for a model's int8 and int4 weights.

    Each setting of each such component is timed on this processor, at the picture's size. The
    fastest one is kept, and drawings from then on use it, also at sizes up to four times as large or
    small. Rounding differs between settings, so that a seed draws a slightly different picture
    afterwards. No drawing measures by itself. `vinograph cache` shows what is kept.
    """
    from vinograph.models import catalog
    from vinograph.runtime.cache import Cache
    from vinograph.tune import TuningRequest
    from vinograph.tune import tune as measure

    _share_processors(options.whole_number(_THREADS, values[_THREADS]))
    sources = options.sources(values)
    model = catalog.find(values["model"], sources)
    given = {name: text for name, text in values.items() if name not in (*_NOT_ARGUMENTS, *sources)}
    prompt = {} if values[_PROMPT] is None else {_PROMPT: values[_PROMPT]}
    request = TuningRequest(
        arguments=options.arguments_with(prompt, given),
        precision=options.per_component(values[PRECISION.name]),
        adapters=adapters.parsed(values[ADAPTER.name]),
        components=values[_COMPONENT],
    )
    cache = Cache()
    with progress.items("measuring") as show:
        found = measure(model, request, show, cache)
    warnings = cache.take_warnings()
    if values[AS_JSON.name]:
        record = {"model": model.manifest.name, "folder": str(cache.folder), **_machine()}
        output.print_json({**record, "components": [_record(each) for each in found], "warnings": warnings})
    else:
        _show(found)
        output.say(f"kept in {cache.folder}: drawings of about this size on {_machine()['cores']} cores use it")
    for warning in warnings:
        output.warn(warning)


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


def _show(found: Sequence[ComponentTuning]) -> None:
    rows = []
    for each in found:
        marks = {each.fastest: "fastest"}
        marks[each.result.setting] = "fastest, kept" if each.result.setting == each.fastest else "kept"
        if len(each.result.seconds) == 1:
            marks[each.result.setting] = "kept: too short a call to gain by another"
        for number, (setting, seconds) in enumerate(each.result.seconds.items()):
            name = each.component if number == 0 else ""
            rows.append([name, str(setting), _duration(seconds), marks.get(setting, "")])
    output.table(["component", "setting", "a call", ""], rows)


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


TUNE = DrawingCommand(
    "generate",
    Option("model", "MODEL", MODEL_HELP),
    [
        BASE,
        Option("size", "WxH", "width and height of the pictures in pixels; default: the model's native size"),
        Option("steps", "N", "denoising steps of the text-conditional stage; default: 1, which shows all that matters"),
        Option("guidance_scale", "G", "guidance scale of that stage; default: the model's own"),
        Option("prompt", "T", "a text as long as the drawings' will be; default: one of about 16 tokens"),
        Option("count", "N", "pictures that are drawn at once; default: 1"),
        Option("component", "NAME", "measure this component alone; again for more; default: all", repeats=True),
        Option("threads", "N", "measure for drawings with N threads, as `vinograph batch --threads N` has them"),
        ADAPTER,
        PRECISION,
    ],
    tune,
)
