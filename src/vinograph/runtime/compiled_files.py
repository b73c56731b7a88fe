"""The files of compiled components in the cache, and which of them to delete.

What a file holds is not read here: its name, its bytes and its time of change are enough.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WITH_WEIGHTS = ".weights"  # ends the stem of a file that holds weights
SUFFIX = ".blob"


@dataclass(frozen=True)
class CompiledFile:
    """A compiled component: its file, its bytes, and its last use in seconds of the epoch."""

    path: str
    size: int
    used: float

    @property
    def file(self) -> Path:
        """The file."""
        return Path(self.path)

    @property
    def with_weights(self) -> bool:
        """Whether the file holds the component's weights."""
        return self.path.endswith(WITH_WEIGHTS + SUFFIX)


def compiled_files(folder: Path) -> list[CompiledFile]:
    """The files of compiled components; none where the folder can't be looked into."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with contextlib.suppress(OSError):  # another process was faster and deleted it
                    stat = entry.stat()
                    found.append(CompiledFile(entry.path, stat.st_size, stat.st_mtime))
    return found


def delete_oldest(files: Sequence[CompiledFile], limit: int) -> None:
    """Delete those that were not used for longest, until the others take at most ``limit`` bytes."""
    kept = sorted(files, key=lambda each: each.used, reverse=True)
    total = sum(each.size for each in kept)
    while kept and total > limit:
        oldest = kept.pop()
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            oldest.file.unlink()
        total -= oldest.size
