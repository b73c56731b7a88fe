"""Standard output and standard error that work for a command whatever they are connected to."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """Streams that print an escape for what their encoding lacks, and nothing where they were closed.

    What can't be written to standard error is dropped: messages and progress are never worth the
    result.
    """
    before = sys.stderr
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = cast("TextIO", _BestEffort(sys.stderr))
    try:
        yield
    finally:
        if before is not None:
            sys.stderr = before


class _BestEffort:
    """A text stream that drops what can't be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write or drop a text."""
        try:
            return self._stream.write(text)
        except OSError:
            redirect_to_null(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write or drop what is buffered."""
        try:
            self._stream.flush()
        except OSError:
            redirect_to_null(self._stream)

    def __getattr__(self, name: str) -> Any:
        """Everything else is as the stream has it."""
        return getattr(self._stream, name)


def redirect_to_null(stream: TextIO) -> None:
    """Discard what a stream still holds: writing it at the end of the process would fail again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
