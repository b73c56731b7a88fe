"""The command line: parse, call, format. :func:`main` is the command ``vinograph``; `docs/cli.md` describes it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

import typer

from vinograph.cli import failures, output
from vinograph.cli.application import application


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name; default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _let_every_text_be_printed()
    with _stopped_by_sigterm():
        try:
            code = _run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            code = _reader_left()
    return code


def _run(arguments: list[str]) -> int:
    try:
        command = typer.main.get_command(application())
        # What `command.main()` does, without its own way of showing errors.
        with command.make_context("vinograph", arguments or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, as_json="--json" in arguments)
    return 0


def _report(error: BaseException, *, as_json: bool) -> int:
    failure = failures.explain(error)
    output.note(failure.message if failure.interrupted else f"error: {failure.message}")
    if as_json:
        output.print_json({"error": failure.record()})
    return failure.exit_code


def _let_every_text_be_printed() -> None:
    """A stream whose encoding lacks a character shows an escape for it, rather than failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _reader_left() -> int:
    """The program that read standard output has closed it: be quiet, and end as SIGPIPE would have ended us."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return failures.READER_LEFT
