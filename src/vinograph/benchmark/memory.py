"""The memory of a process, as Linux reports it in /proc/PID/status."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SAMPLING_INTERVAL = 0.005  # seconds
_KINDS = {"VmHWM": "resident", "VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped"}


@dataclass
class Peaks:
    """The peak of each kind of memory in bytes. Peaks are of different moments, and don't add up.

    ``resident`` is all of a process's memory, ``anonymous`` what no file backs, and ``mapped``
    pages of files, which the system can take back when memory is short. All are 0 where the system
    reports none.
    """

    resident: int = 0
    anonymous: int = 0
    mapped: int = 0

    def sample(self, status: Path) -> None:
        """Read the memory once, where the process has not ended."""
        try:
            text = status.read_text(encoding="ascii")
        except OSError:
            return
        for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE):
            if kind := _KINDS.get(name):
                setattr(self, kind, max(getattr(self, kind), int(size) * 1024))


@contextmanager
def measure_peaks(process: int) -> Iterator[Peaks]:
    """Measure a process's peaks of memory while the block lasts, two hundred times a second."""
    peaks, ended, status = Peaks(), threading.Event(), Path(f"/proc/{process}/status")

    def work() -> None:
        peaks.sample(status)
        while not ended.wait(_SAMPLING_INTERVAL):
            peaks.sample(status)

    thread = threading.Thread(target=work, name=f"memory of {process}")
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()
