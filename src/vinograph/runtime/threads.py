"""How many threads work on large weights at once."""

from __future__ import annotations

from vinograph.resources import cpu_count

_MOST = 8  # more wait for memory, and take more of it


def worker_count() -> int:
    """Number of threads that work on weights at once, each on one of its own."""
    return min(cpu_count(), _MOST)
