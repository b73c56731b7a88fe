"""Panics of libraries written in Rust, as errors that the rest of the program expects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PanicError(RuntimeError):
    """A library panicked: it met a state that its authors thought impossible, such as an index beyond the end."""


@contextmanager
def panics_raised() -> Iterator[None]:
    """Raise :class:`PanicError` where a library panics in the block.

    Python gets a panic as an exception of a class that can't be imported, and is no
    :class:`Exception`.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        raise PanicError(str(error)) from error
