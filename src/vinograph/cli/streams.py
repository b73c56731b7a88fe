"""Makes standard output and standard error writable, whatever they are connected to."""

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
    """Make the standard streams escape characters that they can't encode, and discard if closed.

    Failed writes to standard error are dropped: a lost message must not cost the result.
    """
    original = sys.stderr
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # stays open
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = cast("TextIO", _BestEffort(sys.stderr))
    try:
        yield
    finally:
        if original is not None:
            sys.stderr = original


class _BestEffort:
    """A text stream that drops failed writes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it if that fails."""
        try:
            return self._stream.write(text)
        except OSError:
            redirect_to_null(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write the buffered text, or drop it if that fails."""
        try:
            self._stream.flush()
        except OSError:
            redirect_to_null(self._stream)

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the stream."""
        return getattr(self._stream, name)


def redirect_to_null(stream: TextIO) -> None:
    """Discard a stream's buffer: writing it at the end of the process would fail again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
