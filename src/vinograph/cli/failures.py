"""Message and exit code for every failure of a command."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

import typer

from vinograph import resources
from vinograph.cli import interruption
from vinograph.errors import RequestError, ResourceError, VinographError

INTERRUPTED = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE = 141  # 128 + SIGPIPE

# typer doesn't export the base class of its usage errors, and its module differs by version.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


@dataclass(frozen=True)
class Failure:
    """Why a command stopped; ``kind`` is the name of the error's class."""

    kind: str
    message: str
    exit_code: int

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped it."""
        return self.kind == KeyboardInterrupt.__name__

    def record(self) -> dict[str, Any]:
        """The failure for ``--json``."""
        return {"type": self.kind, "message": self.message, "exit_code": self.exit_code}


def explain(error: BaseException) -> Failure:
    """The failure to report for an exception that ended a command."""
    if number := interruption.received():
        return Failure(KeyboardInterrupt.__name__, "interrupted", 128 + number)
    if isinstance(error, UsageError):
        return Failure("RequestError", _usage(error), RequestError.exit_code)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Failure(KeyboardInterrupt.__name__, "interrupted", INTERRUPTED)
    if (short := resources.explanation(error)) is not None:
        return Failure(ResourceError.__name__, short, ResourceError.exit_code)
    if isinstance(error, VinographError):
        return Failure(type(error).__name__, str(error), error.exit_code)
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror or error}"
        return Failure("RequestError", message, RequestError.exit_code)
    return Failure(type(error).__name__, _defect(error), VinographError.exit_code)


def _usage(error: Exception) -> str:
    """typer's message on one line, and the command that shows the help."""
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message.rstrip('.')}. Read on: {context.command_path} --help"


def _defect(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}\n"
        "This is a defect of Vinograph. Please report it with the lines above, the command, and what "
        "`vinograph doctor` prints."
    )
