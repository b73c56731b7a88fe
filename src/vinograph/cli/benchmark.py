"""The command ``benchmark``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vinograph import strict_json
from vinograph.cli import options, output, progress
from vinograph.cli.options import DEVICE, MEMORY, PRECISION, TUNE, AsJson
from vinograph.errors import ModelError, RequestError
from vinograph.files import check_writable, explained, write_atomically

if TYPE_CHECKING:
    pass

_WIDTH = 100
_NONE = "-"


def benchmark(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="models' names, directories of bundles or checkpoints, or hub ids"),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="NAME",
            help="another system to measure: diffusers, optimum-intel, openvino-genai, stable-diffusion.cpp, notebook, "
            "or one of their variants; may be repeated",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="DIR",
            help="the checkpoint that other systems load; default: the first model, if it is one",
        ),
    ] = None,
    prior: Annotated[
        Path | None, typer.Option("--prior", metavar="DIR", help="Würstchen: the prior's checkpoint, if it is separate")
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            "--python", metavar="NAME=PATH", help="the interpreter of a system's environment; default: this one"
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="SOURCE",
            help="the model whose f32 picture is the reference; default: the first model",
        ),
    ] = None,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="compare no pictures")] = False,
    vae: options.Vae = None,
    base: options.Base = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="width and height in pixels; default: the model's own")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option("--steps", metavar="N", help="denoising steps of the text-conditional stage"),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="an argument of the drawing call, such as vae=full or prior_timesteps=spaced; may be repeated",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="T", help="what to draw; pictures take several in turn; default: six built-in ones"
        ),
    ] = None,
    seed: Annotated[str, typer.Option("--seed", metavar="S", help="the seed of every picture")] = "7",
    count: Annotated[
        list[str] | None,
        typer.Option("--count", metavar="N", help="pictures at once; may be repeated, to measure several; default: 1"),
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=0, help="pictures of each system after the first of each process")
    ] = 5,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", min=1, help="processes of each system that share the runs")
    ] = 2,
    adherence: Annotated[
        int,
        typer.Option(
            "--adherence",
            metavar="N",
            min=0,
            help="prompts that embedded models draw to measure prompt adherence; 0: none",
        ),
    ] = 50,
    tune: Annotated[bool, typer.Option(options.flag(TUNE.name), help=f"first {TUNE.help}")] = False,
    device: Annotated[str, typer.Option("--device", metavar="D", help=DEVICE.help)] = "CPU",
    precision: Annotated[str, typer.Option("--precision", metavar="P", help=PRECISION.help)] = "auto",
    memory: Annotated[str, typer.Option("--memory", metavar="M", help=MEMORY.help)] = "auto",
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="DIR",
            help="a folder to keep other systems' conversions of the checkpoint in; default: none",
        ),
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option(*options.flags("output"), metavar="FILE.json", help="write all measurements")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="draw a chart, ending in .svg or .png")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the speed, memory and fidelity of models, next to other systems.

    Each system runs in its own processes, and the systems take turns. A system that fails is
    reported; the exit code is 3 if all fail. A chart needs matplotlib: pip install
    "vinograph[benchmark]".
    """
    from vinograph import benchmark as measuring
    from vinograph.benchmark import chart as charts

    _check_file("--output", output_file, (".json",))
    _check_file("--chart", chart, charts.ENDINGS)
    if chart is not None:
        charts.check()
    extra = parsed_pairs("--option", option)

    config = measuring.BenchmarkConfig(
        models=sources,
        arguments=options.arguments_with(extra, {"size": size, "steps": steps, "seed": seed}),
        against=against or [],
        reference=reference,
        checkpoint=checkpoint,
        prior=prior,
        pythons=_pairs("--python", python),
        prompts=prompt or [],
        seed=options.seed_of(seed),
        runs=runs,
        rounds=rounds,
        counts=[options.count_of(each) for each in dict.fromkeys(count or ["1"])],
        device=options.per_component(device),
        precision=options.per_component(precision),
        memory=memory,
        sources=options.named_sources(vae, base),
        work=work,
        compare=not no_reference,
        adherence=adherence,
        tune=tune,
    )
    with progress.items("measuring") as show:
        record = measuring.benchmark(config, sys.argv, show)
    _show(record, as_json=as_json)
    if output_file is not None:
        with explained(output_file):
            write_atomically(
                output_file, json.dumps(output.finite(record), indent=2, ensure_ascii=False).encode() + b"\n"
            )
    measured = any(row["failure"] is None for row in record["rows"])
    if chart is not None and measured:
        with explained(chart):
            write_atomically(chart, charts.draw(record, chart.suffix))
    if not measured:
        raise typer.Exit(ModelError.exit_code)


def parsed_pairs(name: str, texts: Sequence[str] | None) -> dict[str, Any]:
    """Parse texts of the form NAME=VALUE, with values in JSON or plain text."""
    return {key: _value(text) for key, text in _pairs(name, texts).items()}


def _pairs(name: str, texts: Sequence[str] | None) -> dict[str, str]:
    """Parse texts of the form NAME=VALUE."""
    pairs: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not (key and equals and value) or key in pairs:
            raise RequestError(f"{name} is {text!r}; give NAME=VALUE, each name once")
        pairs[key] = value
    return pairs


def _value(text: str) -> Any:
    """The value that the text is in JSON, or the text itself."""
    try:
        return strict_json.parse(text)
    except strict_json.JsonError:
        return text


def _check_file(name: str, path: Path | None, endings: Sequence[str]) -> None:
    """Check that a file can be written, before anything is measured."""
    if path is None:
        return
    if path.suffix not in endings:
        raise RequestError(f"{name} {path}: end the name in {' or '.join(endings)}")
    try:
        check_writable(path)
    except OSError as error:
        raise RequestError(
            f"{name} {path} can't be written ({error.strerror}): name a file in a folder that is there and writable"
        ) from error


def _show(record: Mapping[str, Any], *, as_json: bool) -> None:
    rows = record["rows"]
    if as_json:
        output.print_json(record)
    else:
        head = ["", "size", "load", "first", "picture", "/min", "peak", "ratio", "PSNR", "SSIM", "asked"]
        output.table(head, [_cells(row) for row in rows], _WIDTH)
        steady = any(row["stages"] for row in rows)
        stages = list(dict.fromkeys(name for row in rows for name in _stages(row, steady)))
        if stages:
            output.say("")
            output.table(
                ["seconds by stage" if steady else "seconds by stage, first picture", *stages],
                [[_label(row), *(_seconds(_stages(row, steady).get(each)) for each in stages)] for row in rows],
                _WIDTH,
            )
    for row in rows:
        if row["failure"] is not None:
            output.warn(f"{_label(row)}: {row['failure']}")
        for each in row["notes"]:
            output.note(f"{_label(row)}: {each}")
    for each in record["references"]:
        if each["failure"] is not None:
            output.warn(f"{each['name']} in f32, to compare with: {each['failure']}")


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Cells of a row of the table: seconds, gigabytes, decibels and shares."""
    size, adherence = row["size"], row["adherence"]
    return [
        _label(row),
        _NONE if size is None else output.size(size),
        _cell(row["load"]["whole"], "{:.2f} s"),
        _cell(row["first"], "{:.2f} s"),
        _seconds(row["seconds_per_picture"]),
        _cell(row["pictures_per_minute"], "{:.1f}"),
        _cell(row["peaks"]["resident"] / 1e9 or None, "{:.2f} GB"),
        _cell(row["ratio"], "{:.2f}"),
        _cell(row["psnr"], "{:.1f}"),
        _cell(row["ssim"], "{:.3f}"),
        _cell(adherence and adherence["mean"], "{:.0%}"),
    ]


def _label(row: Mapping[str, Any]) -> str:
    return str(row["name"]) if row["count"] == 1 else f"{row['name']} x{row['count']}"


def _stages(row: Mapping[str, Any], steady: bool) -> Mapping[str, float]:
    seconds: Mapping[str, float] = row["stages" if steady else "first_stages"]
    return seconds


def _cell(value: float | None, form: str) -> str:
    return _NONE if value is None else form.format(value)


def _seconds(value: float | None) -> str:
    return _cell(value, "{:.3f} s" if value is not None and value < 1 else "{:.2f} s")
