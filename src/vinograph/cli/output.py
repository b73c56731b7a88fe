"""Prints a command's results on standard output, and everything else on standard error."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vinograph.errors import RequestError, ResourceError
from vinograph.files import is_full

_NO_LIMIT = 10_000


def note(text: str) -> None:
    """Print a line for the person at the terminal, on standard error."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning, on standard error."""
    note(f"warning: {text}")


def say(text: str) -> None:
    """Print a line of the result."""
    with _explained():
        print(text)


def flush() -> None:
    """Write out everything that was printed so far.

    Raises:
        ResourceError, RequestError: standard output can't be written.
        BrokenPipeError: the program that was reading it has ended.
    """
    with _explained():
        sys.stdout.flush()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        kind = ResourceError if is_full(error) else RequestError
        raise kind(f"standard output can't be written: {error.strerror or error}") from error


def print_json(record: Mapping[str, Any]) -> None:
    """Print the result as one JSON object; infinity and NaN become null."""
    say(json.dumps(finite(record), indent=2))


def finite(value: Any) -> Any:
    """Convert a value for JSON: keys to text, and infinity and NaN to None."""
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int = _NO_LIMIT) -> None:
    """Print a table without lines, folded to the terminal's width, or to ``width`` elsewhere.

    With an empty ``head``, the table has no header.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    # Not directly to standard output: on a broken pipe, rich would end the process its own way.
    written = io.StringIO()
    console = Console(file=written, width=None if terminal else width, force_terminal=terminal, highlight=False)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(head))
    for name in head or [""] * len(rows[0]):
        grid.add_column(Text(name), overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)
    for line in written.getvalue().splitlines():
        say(line if terminal else line.rstrip())


def size(count: int) -> str:
    """A number of bytes as text: 288 kB, 3.2 MB, 9.5 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{math.ceil(count / 1000)} kB"
