"""Turns panics of libraries written in Rust into ordinary exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PanicError(RuntimeError):
    """A library panicked: it reached a state that its authors thought impossible."""


@contextmanager
def panics_raised() -> Iterator[None]:
    """Raise :class:`PanicError` if a library panics in the block.

    A panic reaches Python as an exception whose class can't be imported, and doesn't inherit from
    :class:`Exception`.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        raise PanicError(str(error)) from error
