"""The command line: parse, call, format. :func:`main` is the command ``vinograph``, which `docs/cli.md` describes.

Little is imported before :func:`main` listens to signals, and what imports a lot is imported within
it: a Ctrl-C in the first second, or memory that is too little even for the packages, ends a command
as it would later.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from vinograph.cli import interruption

_TO_START = 150_000_000  # bytes of memory that the packages take
# What libraries say of each other's use, which the user of a command can't change.
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name; default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and not sys.warnoptions:  # neither -W nor PYTHONWARNINGS asks for them
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
    """Refuse to start in less memory than the packages take: numpy's BLAS ends a process that lacks it."""
    from vinograph import resources
    from vinograph.errors import ResourceError
    from vinograph.resources import memory_left

    if resources.memory_limit() is not None and resources.memory_available() < _TO_START:
        raise ResourceError(
            f"there is not enough memory to start, which takes {_TO_START / 1e9:.2f} GB: {memory_left()}; "
            "raise the limit, as by `ulimit -v unlimited`"
        )


def _explain_early(error: BaseException, as_json: bool) -> int | None:
    """Report why a command ended before it could report anything itself; None if that is a defect.

    It needs no package but Python's own, since importing any may be what failed.
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
    except MemoryError:  # not even for this
        return "there is not enough memory"
