"""The command line: parse, call, format. :func:`main` is the command ``vinograph``; `docs/cli.md` describes it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import typer

from vinograph.cli import failures, output
from vinograph.cli.application import application


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name; default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    with _stopped_by_sigterm():
        try:
            code = _run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:  # what was reading has seen enough: be quiet, and end as SIGPIPE would have ended us
            code = failures.READER_LEFT
            _drop_output()
        except OSError as error:
            code = _report(error, as_json=False)
            _drop_output()
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


def _prepare_streams() -> None:
    """Print an escape for a character that a stream's encoding lacks, and nothing where a stream was closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # open to the end
        elif isinstance(stream, io.TextIOWrapper):
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


def _drop_output() -> None:
    """Send what standard output still holds nowhere, which at the end of the process would fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
