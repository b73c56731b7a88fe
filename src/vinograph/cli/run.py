"""Runs a command, reports its error and returns its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from vinograph import folders
from vinograph.cli import completion, failures, output, streams
from vinograph.cli.application import application


def run(arguments: Sequence[str]) -> int:
    """Run the command line ``arguments`` (without the program's name) and return its exit code."""
    folders.prepare_for_libraries()
    as_json = "--json" in arguments
    with streams.tolerant():
        try:
            code = _call(list(arguments), as_json)
            output.flush()
        except BrokenPipeError:  # the reader has ended: be quiet, and end as SIGPIPE would have ended us
            code = failures.BROKEN_PIPE
            streams.redirect_to_null(sys.stdout)
        except Exception as error:
            code = _report(error, as_json=False)
            streams.redirect_to_null(sys.stdout)
    return code


def _call(arguments: list[str], as_json: bool) -> int:
    try:
        if completion.is_asked():
            return completion.answer(typer.main.get_command(application()))
        command = typer.main.get_command(application(arguments[0] if arguments else None))
        # As `command.main()`, but without its own error messages.
        with command.make_context("vinograph", arguments or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        raise
    except SystemExit as ended:
        if type(ended) is SystemExit:  # typer's options for completion end so
            return int(ended.code or 0)
        return _report(ended, as_json=as_json)
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, as_json=as_json)
    return 0


def _report(error: BaseException, *, as_json: bool) -> int:
    failure = failures.explain(error)
    output.note(failure.message if failure.interrupted else f"error: {failure.message}")
    if as_json:
        output.print_json({"error": failure.record()})
    return failure.exit_code
