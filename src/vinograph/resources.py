"""Running out of memory, threads, open files or disk space: how to tell, and what to say.

Every library says it in its own way, and often wraps it in another exception. :func:`shortage` is the one place that
knows these ways; callers decide by its answer which error their user meets.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from vinograph import limits
from vinograph.errors import ResourceError, VinographError


class Shortage(Enum):
    """What there was not enough of."""

    MEMORY = "memory"
    THREADS = "threads"
    FILES = "open files"
    DISK = "disk space"


_BY_NUMBER = {
    errno.ENOMEM: Shortage.MEMORY,
    errno.EMFILE: Shortage.FILES,
    errno.ENFILE: Shortage.FILES,
    errno.ENOSPC: Shortage.DISK,
    errno.EDQUOT: Shortage.DISK,
    errno.EFBIG: Shortage.DISK,
}
# What OpenVINO, numpy, torch, the dynamic linker, tokenizers and the hub's client say, in lower case.
_BY_TEXT = {
    Shortage.MEMORY: (
        *("bad_alloc", "bad allocation", "can't alloc", "cannot alloc", "could not alloc", "failed to alloc"),
        *("unable to alloc", "allocate memory", "memory allocation", "out of memory", "not enough memory"),
        *("failed to map segment", "paging file is too small"),
    ),
    Shortage.THREADS: ("can't start new thread", "resource temporarily unavailable", "pthread_create"),
    Shortage.FILES: ("too many open files",),
    Shortage.DISK: ("no space left on device", "disk quota exceeded", "not enough space on the disk"),
}
# Their texts quote what a user or a file said.
_QUOTES = (VinographError, ValueError, LookupError, TypeError, AttributeError)
_LONGEST_DETAIL = 200


def shortage(error: BaseException) -> Shortage | None:
    """What the process ran out of, by an exception or those that it was raised from; None if it was something else."""
    return next((found for each in chain(error) if (found := _shortage_of(each)) is not None), None)


def explanation(error: BaseException) -> str | None:
    """Say what was short, what was needed where that is known, what there is, and what to do.

    None where :func:`shortage` is. A :class:`ResourceError` has said it already.
    """
    for each in chain(error):
        if isinstance(each, ResourceError):
            return str(each)
        match _shortage_of(each):
            case None:
                continue
            case Shortage.MEMORY:
                return f"there is not enough memory{_detail(each)}: {memory_left()}; {_LESS_MEMORY}"
            case Shortage.THREADS:
                return (
                    f"the system gives this process no more threads{_detail(each)}: {_threads_left()}, and "
                    f"{memory_left()}; close other programs, or raise the limit that `ulimit -a` shows"
                )
            case Shortage.FILES:
                return f"too many files are open{_detail(each)}: raise the limit, as by `ulimit -n 4096`"
            case Shortage.DISK:
                return f"there is no disk space left{_detail(each)}{_disk_left(each)}; free some, or name another place"
    return None


_LESS_MEMORY = "close other programs, or draw fewer or smaller pictures"


def memory_left() -> str:
    """How much memory is free, and the limit that this process was given, if it has one; for an error's message."""
    free = f"{limits.memory_available() / 1e9:.2f} GB are free"
    limit = limits.memory_limit()
    return free if limit is None else f"{free} of the {limit / 1e9:.2f} GB that this process may have (ulimit -v)"


def chain(error: BaseException, *, suppressed: bool = False) -> Iterator[BaseException]:
    """The exception, then those that it was raised from or while handling, each once.

    With ``suppressed`` also one that ``from None`` hides, whose message may be the only one that tells the cause.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        hidden = each.__suppress_context__ and not suppressed
        waiting.append(each.__cause__ if hidden else each.__cause__ or each.__context__)


def _shortage_of(error: BaseException) -> Shortage | None:
    if isinstance(error, MemoryError):
        return Shortage.MEMORY
    if isinstance(error, OSError) and error.errno is not None:
        # A stream that doesn't block has the same number with a text of its own.
        if error.errno == errno.EAGAIN and error.strerror == os.strerror(errno.EAGAIN):
            return Shortage.THREADS
        return _BY_NUMBER.get(error.errno)
    if isinstance(error, _QUOTES):
        return None
    text = str(error).casefold()
    return next((kind for kind, told in _BY_TEXT.items() if any(each in text for each in told)), None)


def _detail(error: BaseException) -> str:
    """The last line of what the library said, which has the size it wanted if any line has."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f" ({where}{error.strerror})"[:_LONGEST_DETAIL]
    lines = str(error).strip().splitlines()
    return f" ({lines[-1].strip()[:_LONGEST_DETAIL]})" if lines else ""


def _threads_left() -> str:
    running, allowed = limits.threads()
    return f"{running} run" if allowed is None else f"{running} run, and at most {allowed} may"


def _disk_left(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, os.PathLike)):
        return ""
    place = Path(name).absolute()
    there = next((each for each in (place, *place.parents) if each.exists()), None)
    return "" if there is None else f": {shutil.disk_usage(there).free / 1e9:.3f} GB are free there"
