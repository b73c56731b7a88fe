"""What memory a process takes, as Linux tells of it in /proc/PID/status."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LOOKS = 0.005  # seconds between two of them
_KINDS = {"VmHWM": "resident", "VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped"}


@dataclass
class Peaks:
    """The largest that was seen of each kind, in bytes; they fall at different moments, so they don't add up.

    ``resident`` is all of a process's memory, ``anonymous`` what no file backs, ``mapped`` the pages of files, which
    the system can take back when it is short. All are 0 where the system doesn't tell.
    """

    resident: int = 0
    anonymous: int = 0
    mapped: int = 0

    def look(self, status: Path) -> None:
        """Look once; a process that has ended has none."""
        try:
            text = status.read_text(encoding="ascii")
        except OSError:
            return
        for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE):
            if kind := _KINDS.get(name):
                setattr(self, kind, max(getattr(self, kind), int(size) * 1024))


@contextmanager
def watched(process: int) -> Iterator[Peaks]:
    """The peaks of a process of that number, looked at two hundred times a second while the block lasts."""
    peaks, ended, status = Peaks(), threading.Event(), Path(f"/proc/{process}/status")

    def work() -> None:
        peaks.look(status)
        while not ended.wait(_LOOKS):
            peaks.look(status)

    thread = threading.Thread(target=work, name=f"memory of {process}")
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()
