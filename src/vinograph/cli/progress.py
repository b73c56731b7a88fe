"""Progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from vinograph.cli import output

Show = Callable[[str, int, int], None]
"""Called with a stage's name, its number of finished steps and of all steps."""

_LINES = 6  # at most for a long stage
_TENTHS = 10  # a line for each tenth of a transfer

ShowBytes = Callable[[int, int], None]
"""Called with the number of bytes received and of all bytes."""


def stages(label: str = "") -> AbstractContextManager[Show]:
    """A context that yields a function to show a bar for each stage.

    A ``label`` says which of several calls it is. The bars of the next call then take the place of
    this one's.
    """
    if sys.stderr.isatty():
        return _bars(lambda stage: stage, label)
    return _lines(_LINES, label)


def items(what: str) -> AbstractContextManager[Show]:
    """A context that yields a function to show one bar for a list of items, or a line for each."""
    return _bars(lambda _: what) if sys.stderr.isatty() else _lines(sys.maxsize)


def transfer(what: str) -> AbstractContextManager[ShowBytes]:
    """A context that yields a function to show a transfer's progress."""
    return _transfer_bar(what) if sys.stderr.isatty() else _transfer_lines(what)


@contextmanager
def _transfer_lines(what: str) -> Iterator[ShowBytes]:
    last = 0

    def show(done: int, total: int) -> None:
        nonlocal last
        tenths = _TENTHS * done // max(1, total)
        if tenths > last:
            output.note(f"{what} {output.size(done)} of {output.size(total)}")
            last = tenths

    yield show


@contextmanager
def _transfer_bar(what: str) -> Iterator[ShowBytes]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        yield show


@contextmanager
def _lines(most: int, label: str = "") -> Iterator[Show]:
    last = ""

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        every, line = -(-total // most), f"{label}{stage} {done}/{total}"
        if (done == total or done % every == 0) and line != last:
            print(line, file=sys.stderr, flush=True)
        last = line

    yield show


@contextmanager
def _bars(bar_of: Callable[[str], str], label: str = "") -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=bool(label)) as progress:
        placeholder = progress.add_task("getting ready", total=None)

        def show(stage: str, done: int, total: int) -> None:
            progress.update(placeholder, visible=False)
            bar = bar_of(stage)
            if bar not in bars:
                bars[bar] = progress.add_task(f"{label}{bar}")
            now = f"{label}{stage if done < total else bar}"
            progress.update(bars[bar], description=now, completed=done, total=total)

        yield show
        progress.update(placeholder, visible=False)
