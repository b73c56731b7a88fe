"""What of this machine the process may use: processors, memory and threads.

Its affinity, its control groups and its own limits (``ulimit``) say so.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path

try:
    import resource
except ModuleNotFoundError:  # Windows limits processes otherwise
    resource = None  # type: ignore[assignment]

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
    allowed = [limit for limit in (_number(group / "pids.max") for group in _groups("pids")) if limit is not None]
    if resource is not None and (limit := resource.getrlimit(resource.RLIMIT_NPROC)[0]) != resource.RLIM_INFINITY:
        allowed.append(limit)
    return threading.active_count(), min(allowed, default=None)


def memory_available() -> int:
    """Bytes of memory that could be had without swapping; 0 where the system doesn't say."""
    free = next((int(words[1]) * 1024 for words in _lines(_MEMORY) if words[0] == "MemAvailable:"), 0)
    left = [
        max(0, limit - _memory_used(group))
        for group in _groups("memory")
        if (limit := _memory_limit(group)) is not None
    ]
    return min([free, *left, *(max(0, limit - used) for limit, used in _own_limits())])


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

    Both of version 2, where one group has all controllers, and of version 1, where each has groups of its own. In a
    container the path may be one of the host's: then what is there is its own group, at the outermost place.
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
    quota, period = _number(group / "cpu.max"), _number(group / "cpu.max", 1)
    if period is None:
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota / period if quota is not None and period else None


def _memory_limit(group: Path) -> int | None:
    """Bytes that a group may use, if there is a limit."""
    found = _number(group / "memory.max")
    return _number(group / "memory.limit_in_bytes") if found is None else found


def _memory_used(group: Path) -> int:
    """Bytes that a group uses and that can't be had again by forgetting what lies on the disk."""
    used = _number(group / "memory.current")
    if used is None:
        used = _number(group / "memory.usage_in_bytes")
    files = {"inactive_file", "total_inactive_file"}
    forgettable = max((int(words[1]) for words in _lines(group / "memory.stat") if words[0] in files), default=0)
    return (used or 0) - forgettable


def _number(file: Path, place: int = 0) -> int | None:
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
