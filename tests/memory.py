"""Holds each test process to a limit of memory: where one passes it, the run fails, however its tests went."""

from __future__ import annotations

import ctypes
import gc
import re
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from vinograph.benchmark.memory import Peaks

LIMIT = 3 * 2**30
"""The most bytes that a process may ever have resident: two then fit a machine of 8 GB."""

LARGE = 2**30
_GROWN = 2**27  # bytes since the heap was trimmed, after which a large process trims it again
_OWN = Path("/proc/self/status")
_OUTPUT = "memory"
_MOST_NAMED = 3


def resident() -> int:
    """The bytes that this process has resident now; 0 where the system doesn't tell."""
    found = re.search(r"VmRSS:\s+(\d+) kB", _OWN.read_text(encoding="ascii")) if _OWN.is_file() else None
    return int(found[1]) * 1024 if found else 0


def trim_heap() -> None:
    """Return free heap to the system. glibc keeps it: hundreds of megabytes after a training."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@pytest.fixture(scope="module", autouse=True)
def _heap_trimmed() -> Iterator[None]:
    """Free heap of a large process goes back to the system when a module ends."""
    yield
    if resident() > LARGE:
        trim_heap()


class Growth:
    """How far the peak of this process rose, by the test module in which it rose."""

    def __init__(self) -> None:
        self._peaks = Peaks()
        self.by_module: Counter[str] = Counter()
        self.look("imports")

    def look(self, module: str) -> None:
        """Count what the peak rose since the last look for ``module``."""
        before = self._peaks.resident
        self._peaks.sample(_OWN)
        self.by_module[module] += self._peaks.resident - before


class MemoryLimit:
    """Watches this process, and where it hands tests to others, collects what those tell at their end."""

    def __init__(self) -> None:
        self.growth = Growth()
        self._trimmed = LARGE
        self.workers: dict[str, Counter[str]] = {}

    def pytest_collection_finish(self) -> None:
        """The modules of all tests are imported now."""
        self.growth.look("imports")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """A test ended, and the fixtures that it was the last to need.

        Pipelines are in cycles: without a look for garbage, those of several tests lie beside each other.
        """
        yield
        self.growth.look(item.nodeid.partition("::")[0])
        if resident() > self._trimmed + _GROWN:
            trim_heap()
            self._trimmed = max(LARGE, resident())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker ended; one that crashed tells nothing, and fails the run by itself."""
        if growth := getattr(node, "workeroutput", {}).get(_OUTPUT):
            self.workers[node.gateway.id] = Counter(growth)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker tells how it grew; whoever sees all of them fails the run where one grew too much."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[_OUTPUT] = dict(self.growth.by_module)
        elif any(each.total() > LIMIT for each in self.processes.values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """A line for each process, and where it grew."""
        for name, growth in self.processes.items():
            modules = ", ".join(f"{module} {size / 2**30:.2f}" for module, size in growth.most_common(_MOST_NAMED))
            line = f"{name} had at most {growth.total() / 2**30:.2f} GB resident: {modules}"
            if growth.total() > LIMIT:
                limit = f"more than the {LIMIT / 2**30:g} GB that tests/memory.py allows; release what a module holds"
                terminalreporter.write_line(f"{line}; {limit}", red=True)
            elif growth.total():
                terminalreporter.write_line(line)

    @property
    def processes(self) -> dict[str, Counter[str]]:
        """Those that ran tests, by name."""
        return self.workers or {"the tests": self.growth.by_module}


def pytest_configure(config: pytest.Config) -> None:
    """Watch from the start."""
    config.pluginmanager.register(MemoryLimit(), "memory limit")
