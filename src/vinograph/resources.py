"""The processors, memory and threads that this process may use, and what to say when there are too few.

Affinity, control groups and the process's own limits (``ulimit``) bound processors, memory and
threads. Every library reports a shortage in its own way, and often wraps it in another exception.
:func:`shortage` is the one place that knows these ways; callers decide by its answer which error
their user meets.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from vinograph.errors import ResourceError, VinographError

try:
    import resource
except ModuleNotFoundError:  # Windows limits processes otherwise
    resource = None  # type: ignore[assignment]


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
# What OpenVINO, numpy, torch, the dynamic linker, tokenizers and the hub's client say, in lower
# case.
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
    """The resource that ran out, by an exception or those that it was raised from; None if it was something else."""
    return next((found for each in chain(error) if (found := _shortage_of(each)) is not None), None)


def explanation(error: BaseException) -> str | None:
    """A message that says what ran out, what was needed if that is known, what there is, and what to do.

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
    """How much memory is free, and the limit of this process if it has one, as an error's message says it."""
    free = f"{memory_available() / 1e9:.2f} GB are free"
    limit = memory_limit()
    return free if limit is None else f"{free} of the {limit / 1e9:.2f} GB that this process may have (ulimit -v)"


def chain(error: BaseException, *, suppressed: bool = False) -> Iterator[BaseException]:
    """The exception, then those that it was raised from or while handling, each once.

    With ``suppressed`` also one that ``from None`` hides, whose message may be the only one that
    tells the cause.
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
    return next((kind for kind, texts in _BY_TEXT.items() if any(each in text for each in texts)), None)


def _detail(error: BaseException) -> str:
    """The last line of the library's message: if one says how much was wanted, that one does."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f" ({where}{error.strerror})"[:_LONGEST_DETAIL]
    lines = str(error).strip().splitlines()
    return f" ({lines[-1].strip()[:_LONGEST_DETAIL]})" if lines else ""


def _threads_left() -> str:
    running, allowed = threads()
    return f"{running} run" if allowed is None else f"{running} run, and at most {allowed} may"


def _disk_left(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, os.PathLike)):
        return ""
    place = Path(name).absolute()
    there = next((each for each in (place, *place.parents) if each.exists()), None)
    return "" if there is None else f": {shutil.disk_usage(there).free / 1e9:.3f} GB are free there"


_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_MEMORY = Path("/proc/meminfo")
_OWN_MEMORY = Path("/proc/self/statm")


def cpu_count() -> int:
    """Processors that this process may use: those of its affinity, or as many as its control groups' quotas come to."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in map(_quota, _groups("cpu")) if quota is not None]
    return max(1, min([allowed, *quotas]))


def memory_installed() -> int:
    """Bytes of memory that this machine has, or the least limit to it; 0 where the system doesn't say."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    limits = [limit for limit in map(_memory_limit, _groups("memory")) if limit is not None]
    return min([there, *limits, *(limit for limit, _ in _own_limits())])


def memory_limit() -> int | None:
    """Bytes of memory that the limits of this process itself leave it; None where there are none."""
    return min((limit for limit, _ in _own_limits()), default=None)


def threads() -> tuple[int, int | None]:
    """How many threads run in this process, and how many its user may have or its control groups; None: any number."""
    allowed = [limit for limit in (_read_number(group / "pids.max") for group in _groups("pids")) if limit is not None]
    if resource is not None and (limit := resource.getrlimit(resource.RLIMIT_NPROC)[0]) != resource.RLIM_INFINITY:
        allowed.append(limit)
    return threading.active_count(), min(allowed, default=None)


def memory_available() -> int:
    """Bytes of memory that are free or can be freed without swapping; 0 where the system doesn't say."""
    free = next((int(words[1]) * 1024 for words in _lines(_MEMORY) if words[0] == "MemAvailable:"), 0)
    free_in_groups = [
        max(0, limit - _memory_used(group))
        for group in _groups("memory")
        if (limit := _memory_limit(group)) is not None
    ]
    return min([free, *free_in_groups, *(max(0, limit - used) for limit, used in _own_limits())])


def _own_limits() -> Iterator[tuple[int, int]]:
    """Each limit of this process to its address space or to its data, in bytes, and what it uses of that."""
    if resource is None:
        return
    pages = next(_lines(_OWN_MEMORY), [])
    for kind, place in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            used = int(pages[place]) * resource.getpagesize() if len(pages) > place else 0
            yield limit, used


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the control group that limits this process, and of those around it, the outermost last.

    Both of version 2, where one group has all controllers, and of version 1, where each has groups
    of its own. In a container the path may be one of the host's: then what is there is its own
    group, at the outermost place.
    """
    for words in _lines(_OWN_GROUPS):
        _, controllers, path = " ".join(words).split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        outermost = _GROUPS / controller if controllers else _GROUPS
        own = outermost / path.lstrip("/")
        yield from (each for each in (own, *own.parents) if each.is_relative_to(outermost))


def _quota(group: Path) -> float | None:
    """Processors that a group may use, if there is a limit."""
    quota, period = _read_number(group / "cpu.max"), _read_number(group / "cpu.max", 1)
    if period is None:
        quota, period = _read_number(group / "cpu.cfs_quota_us"), _read_number(group / "cpu.cfs_period_us")
    return quota / period if quota is not None and period else None


def _memory_limit(group: Path) -> int | None:
    """Bytes that a group may use, if there is a limit."""
    found = _read_number(group / "memory.max")
    return _read_number(group / "memory.limit_in_bytes") if found is None else found


def _memory_used(group: Path) -> int:
    """Bytes that a group uses, without the cache of files that the system can drop."""
    used = _read_number(group / "memory.current")
    if used is None:
        used = _read_number(group / "memory.usage_in_bytes")
    files = {"inactive_file", "total_inactive_file"}
    droppable = max((int(words[1]) for words in _lines(group / "memory.stat") if words[0] in files), default=0)
    return (used or 0) - droppable


def _read_number(file: Path, place: int = 0) -> int | None:
    """The number at a place of a file's first line; None if there is none, as where it says "max" or -1."""
    words = next(_lines(file), [])
    return int(words[place]) if len(words) > place and words[place].isdecimal() else None


def _lines(file: Path) -> Iterator[list[str]]:
    """The words of each line of one of the system's files; none if it isn't there."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    yield from (words for line in lines if (words := line.split()))
