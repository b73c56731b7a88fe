"""The command ``batch``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from vinograph.batch.drawing import Drawing
from vinograph.batch.measuring import Need
from vinograph.batch.pictures import Expansion
from vinograph.batch.rows import open_prompts
from vinograph.batch.run import Batch, Run, Shard, Show, Tally, keys_of, missing
from vinograph.batch.store import open_store, there
from vinograph.cli import adapters, options, output
from vinograph.cli.options import (
    ADAPTER,
    AS_JSON,
    BASE,
    DEVICE,
    EMBEDDING,
    MEMORY,
    MODEL,
    PRECISION,
    SIZE,
    DrawingCommand,
    Option,
)
from vinograph.errors import RequestError
from vinograph.families.registry import family
from vinograph.request import Argument, GivenArguments, arguments_of
from vinograph.templates import open_wildcards

if TYPE_CHECKING:
    from vinograph.batch.measuring import Division
    from vinograph.pipeline import Pipeline

_CALL = "generate"
_FAILED = 2  # the exit code where pictures failed: rows were wrong
_LINE_SECONDS = 10.0
_SAMPLE = 4  # pictures to measure with
_OWN = (
    *("prompts", "out", "model", "device", "precision", "memory", "workers", "threads", "grid", "wildcards"),
    *("samples", "verbatim", "ignore", "limit", "shard", "attempts", "dry_run", "ray"),
    *(ADAPTER.name, BASE.name, EMBEDDING.name, AS_JSON.name),
)


def batch(values: Mapping[str, Any]) -> None:
    """Draw all pictures of a file of prompts.

    Run again, it draws what is missing. Options that set an argument hold for rows that have no such
    column. docs/batch.md describes the files.
    """
    names = ("workers", "threads", "samples", "limit", "attempts")
    numbers = {name: options.whole_number(name, values[name]) for name in names}
    pipe, work = _opened(values, numbers)
    as_json, on_cluster = values[AS_JSON.name], values["ray"] is not None
    with _connected(values["ray"]) if on_cluster else nullcontext():
        if values["dry_run"]:
            estimate = _estimate(work, pipe, numbers, on_cluster=on_cluster)
        else:
            tally, files = _drawn(work, pipe, numbers, on_cluster=on_cluster)
    if values["dry_run"]:
        _report_estimate(estimate, as_json=as_json)
    else:
        _report(tally, work.out, files, as_json=as_json)


def _drawn(
    work: Batch, pipe: Pipeline, numbers: Mapping[str, int | None], *, on_cluster: bool
) -> tuple[Tally, list[str]]:
    """Draw what is missing; returns the counts, and the files of the manifest."""
    need = _need(work, pipe, numbers, on_cluster=on_cluster)
    with closing(Run(work, pipe, need.threads)) as run:
        with _progress() as show:
            if on_cluster:
                _draw_on_cluster(run, pipe, need, numbers["workers"], show)
            else:
                run.draw(_division(numbers, need).workers, need.threads, show, output.warn)
        return run.tally, run.publish()


def _connected(address: str) -> AbstractContextManager[None]:
    from vinograph.batch.cluster.connection import connected

    return connected(address)


def _draw_on_cluster(run: Run, pipe: Pipeline, need: Need, workers: int | None, show: Show) -> None:
    from vinograph.batch.cluster.run import draw

    draw(run, pipe, need, workers, show, output.warn)


def _opened(values: Mapping[str, Any], numbers: Mapping[str, int | None]) -> tuple[Pipeline, Batch]:
    """Open the model, and check everything that can be checked before the first picture."""
    prompts = open_prompts(Path(values["prompts"]))
    wildcards = open_wildcards(values["wildcards"])
    shard = _shard(values["shard"])
    drawing = Drawing(
        model=values["model"],
        device=options.per_component(values["device"]),
        precision=options.per_component(values["precision"]),
        memory=values["memory"],
        adapters=adapters.parsed(values[ADAPTER.name]),
        embeddings=options.embeddings_of(values[EMBEDDING.name]),
        sources=options.sources(values),
    )
    pipe = drawing.open()
    texts = {name: value for name, value in values.items() if name not in (*_OWN, *drawing.sources)}
    takes, declared = pipe.calls[_CALL].takes, arguments_of(family(pipe.model.manifest.family).request)
    given, grid = options.arguments(pipe, _CALL, texts), _grid(pipe, values["grid"])
    for settings in grid:
        _check(pipe, given, settings, declared)
    expansion = Expansion(
        declared={name: declared[name] for name in takes},
        common=given.values,
        grid=grid,
        ignored=values["ignore"],
        wildcards=wildcards,
        samples=numbers["samples"],
        verbatim=values["verbatim"],
    )
    expansion.check_columns(prompts)
    return pipe, Batch(
        prompts, values["out"], drawing, expansion, shard, numbers["limit"], numbers["attempts"] or Batch.attempts
    )


def _check(
    pipe: Pipeline, given: GivenArguments, settings: Mapping[str, Any], declared: Mapping[str, Argument]
) -> None:
    """Refuse options that no row could be drawn with; those that need a row's own arguments are left to it."""
    from vinograph.pipeline import resolve_given

    values = {name: value for name, value in {**given.values, **settings}.items() if not declared[name].needs}
    resolve_given(pipe, _CALL, GivenArguments({"prompt": "", **values}, given.names))


def _shard(text: str | None) -> Shard:
    if text is None:
        return Shard()
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise RequestError(f"--shard is {text!r}; give its number and how many there are, such as 1/4")
    return Shard(int(found[1]), int(found[2]))


def _grid(pipe: Pipeline, texts: Sequence[str]) -> list[dict[str, Any]]:
    """All combinations of the settings that ``--grid`` names."""
    axes = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not all(values.split(",")):
            raise RequestError(f"--grid is {text!r}; give an option's name and its values, such as steps=1,4")
        key = name.strip().removeprefix("--").replace("-", "_")
        axes.append([dict(options.arguments(pipe, _CALL, {key: value.strip()}).values) for value in values.split(",")])
    return [{name: value for each in chosen for name, value in each.items()} for chosen in product(*axes)]


def _division(numbers: Mapping[str, int | None], need: Need) -> Division:
    from vinograph.batch.measuring import divided

    return divided(numbers["workers"], need.threads)


def _need(work: Batch, pipe: Pipeline, numbers: Mapping[str, int | None], *, on_cluster: bool) -> Need:
    """What a process is to have: as the options say, or an earlier run measured, or as is fastest."""
    from vinograph.batch import measuring

    store = open_store(work.out)
    need = _known(work, numbers, on_cluster=on_cluster)
    if need is None or (on_cluster and need.private is None):
        output.note("measuring how many processes are fastest, with the first pictures")
        threads = None if need is None else need.threads
        need = _measured(work, pipe, threads, on_cluster=on_cluster) or need or Need(_threads(numbers))
    measuring.remember(store, work.drawing, need)
    return need


def _measured(work: Batch, pipe: Pipeline, threads: int | None, *, on_cluster: bool) -> Need | None:
    """Measure with the first pictures; None where none of them can be drawn."""
    from vinograph.batch import measuring
    from vinograph.batch.drawing import Job

    pictures = work.expansion.pictures(work.prompts, keys_of(work, pipe, 0))
    jobs = [Job(each.key, each.arguments) for each in islice(pictures, 100) if each.error is None][:_SAMPLE]
    if not jobs:
        return None
    if on_cluster:
        from vinograph.batch.cluster import actor, connection

        return connection.measured(actor.Measuring(work.drawing, jobs, threads, str(Path.cwd())), output.note)
    found = measuring.fastest(work.drawing, jobs, output.note)
    return None if found is None else found.need


@dataclass(frozen=True)
class Estimate:
    """How many pictures are missing, and what they will take, as far as that could be measured."""

    pictures: int
    hours: float | None
    gigabytes: float | None


def _estimate(work: Batch, pipe: Pipeline, numbers: Mapping[str, int | None], *, on_cluster: bool) -> Estimate:
    need = _measured(work, pipe, numbers["threads"], on_cluster=on_cluster)
    known = _known(work, numbers, on_cluster=on_cluster) or need or Need(0)
    count = missing(work, keys_of(work, pipe, known.threads))
    workers = 0 if need is None else _workers(numbers, need, on_cluster=on_cluster)
    hours = count / need.pace / workers / 3600 if need and need.pace and workers else None
    return Estimate(count, hours, count * need.size / 1e9 if need and need.size else None)


def _report_estimate(estimate: Estimate, *, as_json: bool) -> None:
    if as_json:
        output.print_json(vars(estimate))
        return
    output.say(f"{estimate.pictures:,} pictures to draw")
    if estimate.hours is not None and estimate.gigabytes is not None:
        output.say(f"{estimate.hours:.2f} hours, {estimate.gigabytes:.3f} GB")


def _workers(numbers: Mapping[str, int | None], need: Need, *, on_cluster: bool) -> int:
    """How many processes would draw."""
    if not on_cluster:
        return _division(numbers, need).workers
    from vinograph.batch.cluster.connection import slots

    return min(slots(need), numbers["workers"] or slots(need))


def _known(work: Batch, numbers: Mapping[str, int | None], *, on_cluster: bool) -> Need | None:
    """What a process is to have, as far as options or an earlier run say."""
    from vinograph.batch import measuring

    remembered = measuring.remembered(open_store(work.out), work.drawing) if there(work.out) else None
    threads = numbers["threads"]
    if remembered is not None and threads in (None, remembered.threads):
        return remembered
    if threads is None and numbers["workers"] is not None and not on_cluster:
        threads = _threads(numbers)
    return None if threads is None else Need(threads)


def _threads(numbers: Mapping[str, int | None]) -> int:
    """The threads of a process where nothing can be measured."""
    from vinograph.batch.measuring import divided

    return divided(numbers["workers"], numbers["threads"]).threads


def _report(tally: Tally, out: str, files: Sequence[str], *, as_json: bool) -> None:
    import typer

    if as_json:
        output.print_json(
            {
                "drawn": tally.drawn,
                "there": tally.there,
                "same": tally.copies,
                "failed": tally.failed,
                "bytes": tally.size,
                "pictures_per_minute": tally.per_minute,
                "manifest": [f"{out.rstrip('/')}/{name}" for name in files],
            }
        )
    else:
        output.say(
            f"{tally.drawn:,} drawn, {tally.there:,} were there, {tally.copies:,} the same as others, "
            f"{tally.failed:,} failed"
        )
        output.say(" ".join(f"{out.rstrip('/')}/{name}" for name in files))
    if tally.failed:
        output.warn(f"{tally.failed:,} pictures failed; the manifest says why")
        raise typer.Exit(_FAILED)


@contextmanager
def _progress() -> Iterator[Show]:
    """A function to show how far the run is: a bar on a terminal, now and then a line elsewhere."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("getting ready", total=None)

        def show(tally: Tally) -> None:
            progress.update(bar, description=_line(tally), completed=tally.met, total=tally.total)

        yield show


def _lines() -> Show:
    last = monotonic()

    def show(tally: Tally) -> None:
        nonlocal last
        if monotonic() - last >= _LINE_SECONDS:
            output.note(_line(tally))
            last = monotonic()

    return show


def _line(tally: Tally) -> str:
    total = "…" if tally.total is None else f"{tally.total:,}"
    parts = [f"{tally.met:,} of {total}"]
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    if tally.per_minute is not None:
        parts.append(f"{tally.per_minute:.1f} per minute")
    if (left := tally.seconds_left) is not None:
        hours, minutes = divmod(int(left) // 60, 60)
        parts.append(f"{hours}:{minutes:02}:{int(left) % 60:02} left")
    return ", ".join(parts)


BATCH = DrawingCommand(
    _CALL,
    Option("prompts", "PROMPTS", "a text file with a prompt on each line, or a .jsonl, .csv or .parquet file"),
    [
        MODEL,
        BASE,
        Option("workers", "N", "processes that draw; default: as many as are fastest, which is measured once"),
        Option("threads", "N", "threads of each process; they are part of what a picture is"),
        Option(
            "grid", "NAME=V,V", "draw each row with each value of an option; again for all combinations", repeats=True
        ),
        Option("wildcards", "DIR", "the folder of wildcards: __animal__ stands for each line of animal.txt"),
        Option("samples", "N", "draw at most N texts of one that stands for more, chosen at random"),
        Option("verbatim", None, "draw texts as they stand, also with {a|b} and __animal__"),
        Option("ignore", "COLUMN", "leave out a column; again for more", repeats=True),
        Option("limit", "N", "stop after the first N pictures of the list"),
        Option("shard", "I/N", "draw the I-th of N parts of the list"),
        Option("attempts", "N", "tries of a picture whose process ended or lacked memory; default: 3"),
        Option("ray", "ADDRESS", "draw on the Ray cluster at HOST:PORT, or the one of this machine: auto"),
        Option("dry_run", None, "draw nothing; estimate pictures, hours and gigabytes"),
        SIZE,
        Option("seed", "S", "the seed of rows without one; default: each text has its own"),
        Option("count", "N", "pictures of each row"),
        Option("image", "FILE", "a PNG, JPEG or WebP picture to start from"),
        Option("strength", "X", "how much to change that picture, above 0 and up to 1"),
        EMBEDDING,
        ADAPTER,
        DEVICE,
        PRECISION,
        MEMORY,
    ],
    batch,
    second=Option("out", "OUT", "the folder for the pictures, or a URL such as s3://bucket/folder"),
)
