"""The command line; :func:`main` is the command ``vinograph``, which `docs/cli.md` describes.

:func:`main` handles signals before it imports most packages. So Ctrl-C in the first second, or too
little memory for the packages, ends a command with the usual message and exit code.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from vinograph.cli import interruption

_TO_START = 150_000_000  # bytes of memory that importing the packages takes
# Warnings of libraries to developers, which the user of a command can't act on.
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    ``argv`` excludes the program's name; by default it is the process's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and not sys.warnoptions:  # neither -W nor PYTHONWARNINGS is set
        for kind in _FOR_DEVELOPERS:
            warnings.simplefilter("ignore", kind)
    with interruption.Interruptible(owns_process=argv is None):
        try:
            _check_memory()
            from vinograph.cli.run import run

            return run(arguments)
        except BaseException as error:
            code = _explain_early(error, "--json" in arguments)
            if code is None:
                raise
            return code


def _check_memory() -> None:
    """Refuse to start with too little memory for the packages: numpy's BLAS would abort."""
    from vinograph import resources
    from vinograph.errors import ResourceError
    from vinograph.resources import memory_left

    if resources.memory_limit() is not None and resources.memory_available() < _TO_START:
        raise ResourceError(
            f"there is not enough memory to start, which takes {_TO_START / 1e9:.2f} GB: {memory_left()}; "
            "raise the limit, as by `ulimit -v unlimited`"
        )


def _explain_early(error: BaseException, as_json: bool) -> int | None:
    """Report an interruption or a shortage during startup, and return the exit code.

    None if the error is a defect. This imports no third-party package, since such an import may
    have failed.
    """
    from vinograph.errors import ResourceError

    if number := interruption.received():
        code, kind, message = 128 + number, "KeyboardInterrupt", "interrupted"
        line = message
    elif (shortage := _shortage(error)) is not None:
        code, kind, message = ResourceError.exit_code, "ResourceError", shortage
        line = f"error: {shortage}"
    else:
        return None
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)
    if as_json and sys.stdout is not None:
        import json

        print(json.dumps({"error": {"type": kind, "message": message, "exit_code": code}}, indent=2), flush=True)
    return code


def _shortage(error: BaseException) -> str | None:
    try:
        from vinograph.resources import explanation

        return explanation(error)
    except MemoryError:  # not enough even for the message
        return "there is not enough memory"
