"""The limit of the test processes' memory: a run in which one passed it fails, and tells where it grew."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.memory import LIMIT, MemoryLimit, resident


class Terminal:
    """Where the summary is written."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bool]] = []

    def write_line(self, line: str, red: bool = False) -> None:
        self.lines.append((line, red))


def ended(limit: MemoryLimit, name: str, **by_module: int) -> None:
    """A worker ended that grew so."""
    node: Any = SimpleNamespace(gateway=SimpleNamespace(id=name), workeroutput={"memory": by_module})
    limit.pytest_testnodedown(node)


def finished(limit: MemoryLimit, **config: Any) -> Any:
    """The session's exit status after all tests passed."""
    session: Any = SimpleNamespace(config=SimpleNamespace(**config), exitstatus=pytest.ExitCode.OK)
    limit.pytest_sessionfinish(session)
    return session.exitstatus


@pytest.mark.parametrize(("more", "status"), [(0, pytest.ExitCode.OK), (1, pytest.ExitCode.TESTS_FAILED)])
def test_a_run_fails_where_a_worker_passed_the_limit(more: int, status: pytest.ExitCode) -> None:
    limit = MemoryLimit()
    ended(limit, "gw0", imports=2**20)
    ended(limit, "gw1", imports=2**29, pictures=LIMIT - 2**29 + more)
    assert finished(limit) == status
    terminal = Terminal()
    limit.pytest_terminal_summary(terminal)
    (_, first), (line, second) = terminal.lines
    assert (first, second) == (False, bool(more))
    assert line.startswith("gw1 had at most 3.00 GB resident: pictures 2.50, imports 0.50")
    assert ("more than the 3 GB" in line) == bool(more)


def test_a_worker_that_crashed_tells_nothing() -> None:
    limit = MemoryLimit()
    limit.pytest_testnodedown(SimpleNamespace(gateway=SimpleNamespace(id="gw0")))
    assert limit.workers == {}


@pytest.mark.skipif(not resident(), reason="the system doesn't tell how much memory a process has")
def test_a_worker_tells_how_it_grew() -> None:
    limit, output = MemoryLimit(), dict[str, Any]()
    limit.growth.look("a module")
    assert finished(limit, workeroutput=output) == pytest.ExitCode.OK
    assert output["memory"].keys() == {"imports", "a module"}
    assert sum(output["memory"].values()) >= resident() - 2**20
