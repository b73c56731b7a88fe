"""Limits of this process on processors, memory and threads, and messages about shortages.

Affinity, control groups and the process's own limits (``ulimit``) bound processors, memory and
threads. Every library reports a shortage in its own way, and often wraps it in another exception.
:func:`shortage` is the one place that knows these ways; callers choose the error to raise by its
result.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import threading
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from vinograph.errors import ResourceError, VinographError

try:
    import resource
except ModuleNotFoundError:  # not available on Windows
    resource = None  # type: ignore[assignment]


class Shortage(Enum):
    """A resource that ran out."""

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
# Messages of OpenVINO, numpy, torch, the dynamic linker, tokenizers and the hub's client, in lower
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
# OpenVINO says that a model is wrong when there is no memory to load its own reader of models.
_WITHOUT_READER = re.compile(r"available frontends:(?!.*\bir\b)")
# Their messages may quote a user or a file, so they don't count as evidence of a shortage.
_QUOTES = (VinographError, ValueError, LookupError, TypeError, AttributeError)
_LONGEST_DETAIL = 200


def shortage(error: BaseException) -> Shortage | None:
    """The resource whose shortage caused ``error`` or one of its causes; None for other errors."""
    return next((kind for each in chain(error) if (kind := _shortage_of(each)) is not None), None)


def explanation(error: BaseException) -> str | None:
    """Message on what ran out, how much was needed, how much is free, and what to do.

    None if :func:`shortage` returns None. The message of a :class:`ResourceError` is returned as
    it is.
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
    """Text on the free memory, and on this process's limit if it has one, for error messages."""
    free = f"{memory_available() / 1e9:.2f} GB are free"
    limit = memory_limit()
    return free if limit is None else f"{free} of the {limit / 1e9:.2f} GB that this process may have (ulimit -v)"


def chain(error: BaseException, *, suppressed: bool = False) -> Iterator[BaseException]:
    """Yield the exception, then its causes and contexts, each once.

    With ``suppressed``, contexts that ``from None`` hides are included: sometimes only their
    messages name the cause.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        each = queue.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            queue += each.exceptions
        hidden = each.__suppress_context__ and not suppressed
        queue.append(each.__cause__ if hidden else each.__cause__ or each.__context__)


def _shortage_of(error: BaseException) -> Shortage | None:
    if isinstance(error, MemoryError):
        return Shortage.MEMORY
    if isinstance(error, OSError) and error.errno is not None:
        # A non-blocking stream reports the same number with another text.
        if error.errno == errno.EAGAIN and error.strerror == os.strerror(errno.EAGAIN):
            return Shortage.THREADS
        return _BY_NUMBER.get(error.errno)
    if isinstance(error, _QUOTES):
        return None
    text = str(error).casefold()
    if _WITHOUT_READER.search(text):
        return Shortage.MEMORY
    return next((kind for kind, texts in _BY_TEXT.items() if any(each in text for each in texts)), None)


def _detail(error: BaseException) -> str:
    """The last line of the library's message, the one that may say how much it requested."""
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
    folder = next((each for each in (place, *place.parents) if each.exists()), None)
    return "" if folder is None else f": {shutil.disk_usage(folder).free / 1e9:.3f} GB are free there"


_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_MEMORY = Path("/proc/meminfo")
_OWN_MEMORY = Path("/proc/self/statm")


_processors: int | None = None


def share_processors(count: int) -> None:
    """Have this process use ``count`` processors, any of them: others leave it so many."""
    global _processors
    _processors = count


def processors_are_shared() -> bool:
    """Whether :func:`share_processors` was called; then no thread may keep to one processor."""
    return _processors is not None


def cpu_count() -> int:
    """Number of processors that affinity, control groups and other processes leave to this one."""
    if _processors is not None:
        return _processors
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in map(_quota, _groups("cpu")) if quota is not None]
    return max(1, min([allowed, *quotas]))


def memory_installed() -> int:
    """Bytes of memory of this machine, or the lowest limit on it; 0 if unknown."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    limits = [limit for limit in map(_memory_limit, _groups("memory")) if limit is not None]
    return min([installed, *limits, *(limit for limit, _ in _own_limits())])


def memory_resident() -> int:
    """Bytes that this process has resident; 0 if unknown."""
    pages = next(_lines(_OWN_MEMORY), [])
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0


def memory_private() -> int:
    """Bytes that this process has resident and no file or other process shares; 0 if unknown."""
    pages = next(_lines(_OWN_MEMORY), [])
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 2 else 0


def memory_shared() -> int:
    """Bytes that this process has resident of mapped files and shared memory; 0 if unknown."""
    pages = next(_lines(_OWN_MEMORY), [])
    return int(pages[2]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 2 else 0


def memory_limit() -> int | None:
    """Lowest of this process's own memory limits, in bytes; None if it has none."""
    return min((limit for limit, _ in _own_limits()), default=None)


def threads() -> tuple[int, int | None]:
    """Number of threads that run in this process, and the lowest limit of its user and groups.

    The second is None if there is no limit.
    """
    allowed = [limit for limit in (_read_number(group / "pids.max") for group in _groups("pids")) if limit is not None]
    if resource is not None and (limit := resource.getrlimit(resource.RLIMIT_NPROC)[0]) != resource.RLIM_INFINITY:
        allowed.append(limit)
    return threading.active_count(), min(allowed, default=None)


def memory_available() -> int:
    """Bytes of memory available without swapping; 0 if unknown."""
    free = next((int(words[1]) * 1024 for words in _lines(_MEMORY) if words[0] == "MemAvailable:"), 0)
    free_in_groups = [
        max(0, limit - _memory_used(group))
        for group in _groups("memory")
        if (limit := _memory_limit(group)) is not None
    ]
    return min([free, *free_in_groups, *(max(0, limit - used) for limit, used in _own_limits())])


def _own_limits() -> Iterator[tuple[int, int]]:
    """Yield each limit on this process's address space or data, with its usage, in bytes."""
    if resource is None:
        return
    pages = next(_lines(_OWN_MEMORY), [])
    for kind, place in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            used = int(pages[place]) * resource.getpagesize() if len(pages) > place else 0
            yield limit, used


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control group that limits this process and of its parents, the root last.

    In version 2, one group has all controllers; in version 1, each controller has groups of its
    own. In a container, the path may be the host's: then the container's own group is at the root.
    """
    for words in _lines(_OWN_GROUPS):
        _, controllers, path = " ".join(words).split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        outermost = _GROUPS / controller if controllers else _GROUPS
        innermost = outermost / path.lstrip("/")
        yield from (each for each in (innermost, *innermost.parents) if each.is_relative_to(outermost))


def _quota(group: Path) -> float | None:
    """Number of processors that a group may use; None without a limit."""
    quota, period = _read_number(group / "cpu.max"), _read_number(group / "cpu.max", 1)
    if period is None:
        quota, period = _read_number(group / "cpu.cfs_quota_us"), _read_number(group / "cpu.cfs_period_us")
    return quota / period if quota is not None and period else None


def _memory_limit(group: Path) -> int | None:
    """Bytes of memory that a group may use; None without a limit."""
    limit = _read_number(group / "memory.max")
    return _read_number(group / "memory.limit_in_bytes") if limit is None else limit


def _memory_used(group: Path) -> int:
    """Bytes of memory that a group uses, without the file cache that the system can drop."""
    used = _read_number(group / "memory.current")
    if used is None:
        used = _read_number(group / "memory.usage_in_bytes")
    files = {"inactive_file", "total_inactive_file"}
    droppable = max((int(words[1]) for words in _lines(group / "memory.stat") if words[0] in files), default=0)
    return (used or 0) - droppable


def _read_number(file: Path, place: int = 0) -> int | None:
    """Number at position ``place`` of a file's first line; None if absent, "max" or -1."""
    words = next(_lines(file), [])
    return int(words[place]) if len(words) > place and words[place].isdecimal() else None


def _lines(file: Path) -> Iterator[list[str]]:
    """Yield the words of each line of a system file; nothing if the file doesn't exist."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    yield from (words for line in lines if (words := line.split()))


def child_environment() -> dict[str, str]:
    """Environment of a Python process that imports the Vinograph that is running."""
    home = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
