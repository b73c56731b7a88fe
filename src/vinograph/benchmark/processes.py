"""Measured processes: starting one, listening to it, and watching its memory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import vinograph
from vinograph import strict_json
from vinograph.benchmark.memory import Peaks, watched

CHILD = Path(__file__).with_name("child.py")
_PATIENCE = 10  # seconds that a process has to end in, once it was told to
_LOG_KEPT = 4000  # characters of what a process that failed printed
_RAISED = re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit)\b")

Listener = Callable[[Mapping[str, Any]], None]
"""Called with each event that a process tells of."""


@dataclass
class Outcome:
    """What came of a process: its events, the peaks of its memory, why it failed, if it did, and what it printed.

    ``at`` of an event is its moment in seconds since the process was started.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    peaks: Peaks = field(default_factory=Peaks)
    failure: str | None = None
    seconds: float = 0.0
    log: str = ""

    def told(self, event: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [each for each in self.events if each["event"] == event]

    def record(self) -> dict[str, Any]:
        """As it goes into the results."""
        return {
            "seconds": self.seconds,
            "failure": self.failure,
            "log": self.log[-_LOG_KEPT:] if self.failure else None,
            "peaks": asdict(self.peaks),
            "events": [{name: value for name, value in each.items() if name != "file"} for each in self.events],
        }


def run(
    python: str, arguments: list[str], task: Mapping[str, Any] | None = None, heard: Listener | None = None
) -> Outcome:
    """Run ``child.py`` with ``arguments`` by the interpreter ``python``, to its end. It never outlives this call."""
    outcome, start = Outcome(), time.perf_counter()
    with tempfile.TemporaryFile() as noise:
        child = subprocess.Popen(
            [python, str(CHILD), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            encoding="utf-8",
            env=_environment(python),
        )
        try:
            with watched(child.pid) as outcome.peaks:
                _tell(child, task)
                _listen(child, outcome, start, heard)
                child.wait()
        finally:
            _end(child)
        outcome.seconds = time.perf_counter() - start
        noise.seek(0)
        outcome.log = noise.read().decode("utf-8", "replace")
        outcome.failure = _failure(child.returncode, outcome)
    return outcome


def _environment(python: str) -> dict[str, str]:
    """This process's environment. Our own interpreter finds the Vinograph that is running."""
    environment = dict(os.environ)
    if python == sys.executable:
        home = str(Path(vinograph.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH")]))
    return environment


def _tell(child: subprocess.Popen[str], task: Mapping[str, Any] | None) -> None:
    assert child.stdin is not None
    try:
        with child.stdin as stdin:
            json.dump(task, stdin)
    except BrokenPipeError:  # it has ended already; its exit code says why
        pass


def _listen(child: subprocess.Popen[str], outcome: Outcome, start: float, heard: Listener | None) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        try:
            event = {**strict_json.parse_object(line), "at": time.perf_counter() - start}
        except strict_json.JsonError:  # cut off where the process was killed; its exit code says so
            continue
        outcome.events.append(event)
        if heard is not None:
            heard(event)


def _end(child: subprocess.Popen[str]) -> None:
    """End a process that is still there, as after Ctrl-C."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _failure(code: int, outcome: Outcome) -> str | None:
    """Why a process failed, in a line; None of one that did not."""
    if code == 0:
        return None
    if refused := outcome.told("refused"):
        return str(refused[-1]["message"])
    if code < 0:
        return f"{_ended_by(-code)} at {outcome.peaks.resident / 1e9:.1f} GB"
    lines = [line.strip() for line in outcome.log.splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    return (raised or lines or [f"it ended with {code}"])[-1]


def _ended_by(number: int) -> str:
    return "killed" if number == signal.SIGKILL else f"ended by {signal.Signals(number).name}"
