"""The command ``adapters``, and the values of the option ``--adapter``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from vinograph.cli import completion, output
from vinograph.cli.completion import completing, models
from vinograph.cli.options import DEFAULT_MODEL, MODEL_HELP, AsJson, flags

if TYPE_CHECKING:
    from vinograph.adapters.report import Report

_FEW = 20  # tensors without effect that are listed; --json has all


def adapters(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="an adapter's file, folder, or name", autocompletion=completing(completion.adapters)
        ),
    ],
    model: Annotated[
        str, typer.Option(*flags("model"), metavar="REF", help=MODEL_HELP, autocompletion=completing(models))
    ] = DEFAULT_MODEL,
    all_tensors: Annotated[bool, typer.Option("--all", help="list every tensor that changes nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what an adapter's file is, and what it changes in a model.

    Shows its kind and rank, how its keys are named, the model that it was made for, trigger words
    where the file has them, and every tensor that changes nothing, with the reason. The exit code
    is 2 where nothing fits the model.
    """
    from vinograph.adapters.report import report
    from vinograph.models import catalog

    found = report(file, catalog.find(model))
    if as_json:
        output.print_json(found.record())
    else:
        output.table([], [[name, value] for name, value in _rows(found) if value])
        _say_unused(found, all_tensors)
    found.check()


def _rows(found: Report) -> list[tuple[str, str]]:
    return [
        ("file", str(found.file.path)),
        ("kind", _counted(found.kinds)),
        ("rank", found.rank),
        ("keys", _counted(found.match.styles)),
        ("made for", found.made_for or "not stated"),
        ("model", found.model),
        ("changes", _counted(found.changed, "weights")),
        ("tensors", f"{len(found.match.used)} used of {len(found.file.tensors)}"),
        ("without effect", _idle(len(found.match.idle))),
        ("trigger words", ", ".join(found.trigger_words)),
    ]


def _idle(count: int) -> str:
    return f"{count} tensors, of layers that the model doesn't compute" if count else ""


def _counted(counts: Mapping[str, int], what: str = "") -> str:
    return ", ".join(f"{name} ({count}{f' {what}' if what else ''})" for name, count in counts.items())


def _say_unused(found: Report, all_tensors: bool) -> None:
    unused = found.match.unused
    for each in unused if all_tensors else unused[:_FEW]:
        output.say(f"unused: {each.tensor}: {each.reason}")
    if len(unused) > _FEW and not all_tensors:
        output.say(f"and {len(unused) - _FEW} more: --all lists them")


def parsed(texts: Iterable[str] | None) -> dict[str, float]:
    """The values of ``--adapter``: weights by file."""
    from vinograph.adapters.file import parse_weight

    return dict(parse_weight(text) for text in texts or ())
