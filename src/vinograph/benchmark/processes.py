"""Measured processes: they are started, their events collected, and their memory watched."""

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
from vinograph.benchmark.memory import Peaks, measure_peaks

CHILD = Path(__file__).with_name("child.py")
_TERMINATE_SECONDS = 10  # that a process has to end in after SIGTERM
_MAX_LOG = 4000  # characters
_RAISED = re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit)\b")

EventListener = Callable[[Mapping[str, Any]], None]
"""Called with each event that a process writes."""


@dataclass
class Outcome:
    """The outcome of a process: its events, peaks of memory, failure if it failed, and log.

    The field ``at`` of an event is the seconds from the process's start.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    peaks: Peaks = field(default_factory=Peaks)
    failure: str | None = None
    seconds: float = 0.0
    log: str = ""

    def events_named(self, event: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [each for each in self.events if each["event"] == event]

    def record(self) -> dict[str, Any]:
        """The outcome as the results record it."""
        return {
            "seconds": self.seconds,
            "failure": self.failure,
            "log": self.log[-_MAX_LOG:] if self.failure else None,
            "peaks": asdict(self.peaks),
            "events": [{name: value for name, value in each.items() if name != "file"} for each in self.events],
        }


def run(
    python: str, arguments: list[str], task: Mapping[str, Any] | None = None, on_event: EventListener | None = None
) -> Outcome:
    """Run ``child.py`` to its end with the interpreter ``python``; it never outlives this call."""
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
            with measure_peaks(child.pid) as outcome.peaks:
                _send_task(child, task)
                _collect_events(child, outcome, start, on_event)
                child.wait()
        finally:
            _end(child)
        outcome.seconds = time.perf_counter() - start
        noise.seek(0)
        outcome.log = noise.read().decode("utf-8", "replace")
        outcome.failure = _failure(child.returncode, outcome)
    return outcome


def _environment(python: str) -> dict[str, str]:
    """The environment of a process.

    With our own interpreter, it imports the Vinograph that is running.
    """
    environment = dict(os.environ)
    if python == sys.executable:
        home = str(Path(vinograph.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH")]))
    return environment


def _send_task(child: subprocess.Popen[str], task: Mapping[str, Any] | None) -> None:
    assert child.stdin is not None
    try:
        with child.stdin as stdin:
            json.dump(task, stdin)
    except BrokenPipeError:  # it has ended already; its exit code says why
        pass


def _collect_events(
    child: subprocess.Popen[str], outcome: Outcome, start: float, on_event: EventListener | None
) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        try:
            event = {**strict_json.parse_object(line), "at": time.perf_counter() - start}
        except strict_json.JsonError:  # cut off where the process was killed; its exit code says so
            continue
        outcome.events.append(event)
        if on_event is not None:
            on_event(event)


def _end(child: subprocess.Popen[str]) -> None:
    """End a process that is still there, as after Ctrl-C."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_TERMINATE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _failure(code: int, outcome: Outcome) -> str | None:
    """One line that says why a process failed; None where it did not."""
    if code == 0:
        return None
    if refused := outcome.events_named("refused"):
        return str(refused[-1]["message"])
    if code < 0:
        return f"{_ended_by(-code)} at {outcome.peaks.resident / 1e9:.1f} GB"
    lines = [line.strip() for line in outcome.log.splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    return (raised or lines or [f"it ended with {code}"])[-1]


def _ended_by(number: int) -> str:
    return "killed" if number == signal.SIGKILL else f"ended by {signal.Signals(number).name}"
