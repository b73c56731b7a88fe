"""The memory that a process has resident."""

from __future__ import annotations

import mmap
from pathlib import Path


def resident_memory(process: int) -> int:
    """Bytes of memory that a process has resident; 0 where that can't be read."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * mmap.PAGESIZE
