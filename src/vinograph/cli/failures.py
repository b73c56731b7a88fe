"""Every way in which a command can fail: what is said, and the exit code."""

from __future__ import annotations

import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from vinograph.errors import RequestError, ResourceError, VinographError
from vinograph.files import is_full

INTERRUPTED = 130  # 128 + SIGINT, as shells count
READER_LEFT = 141  # 128 + SIGPIPE

# typer exports no name for the base of its complaints about a call; its home differs by version.
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
        return self.exit_code == INTERRUPTED

    def record(self) -> dict[str, Any]:
        """The failure for ``--json``."""
        return {"type": self.kind, "message": self.message, "exit_code": self.exit_code}


def explain(error: BaseException) -> Failure:
    """What an exception that ended a command means to its user."""
    if isinstance(error, VinographError):
        return Failure(type(error).__name__, str(error), error.exit_code)
    if isinstance(error, UsageError):
        return Failure("RequestError", _usage(error), RequestError.exit_code)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Failure("KeyboardInterrupt", "interrupted", INTERRUPTED)
    if isinstance(error, MemoryError):
        return Failure("ResourceError", _out_of_memory(), ResourceError.exit_code)
    if isinstance(error, OSError) and is_full(error):
        return Failure("ResourceError", _out_of_disk(error), ResourceError.exit_code)
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror or error}"
        return Failure("RequestError", message, RequestError.exit_code)
    return Failure(type(error).__name__, _defect(error), VinographError.exit_code)


def _usage(error: Exception) -> str:
    """typer's message on one line, and where to read on."""
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message.rstrip('.')}. Read on: {context.command_path} --help"


def _out_of_memory() -> str:
    from vinograph.limits import memory_available

    return (
        f"there is not enough memory: {memory_available() / 1e9:.1f} GB are free; "
        "close other programs, or draw fewer or smaller pictures"
    )


def _out_of_disk(error: OSError) -> str:
    if error.filename is None:
        return error.strerror or str(error)
    where = Path(error.filename).absolute()
    while not where.exists():
        where = where.parent
    return f"{error.filename}: {error.strerror} ({shutil.disk_usage(where).free / 1e9:.2f} GB are free there)"


def _defect(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}\n"
        "This is a defect of Vinograph. Please report it with the lines above, the command, and what "
        "`vinograph doctor` prints."
    )
