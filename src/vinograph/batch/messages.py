"""The messages between the driver of a batch and a process that draws."""

from __future__ import annotations

from dataclasses import dataclass

from vinograph.batch.drawing import Drawing
from vinograph.batch.expected import Expected
from vinograph.batch.index import Outcome


@dataclass(frozen=True)
class Begin:
    """The first message to a process. Without ``out``, what is drawn is dropped.

    With ``expected``, the process is one of a batch on many machines, and checks what it finds.
    """

    drawing: Drawing
    out: str | None
    expected: Expected | None = None


@dataclass(frozen=True)
class Ready:
    """The process takes jobs."""


@dataclass(frozen=True)
class Finished:
    """A job has ended; ``private`` is the memory in bytes that it has alone."""

    outcome: Outcome
    private: int


@dataclass(frozen=True)
class Unusable:
    """No job can be drawn: the error's class and what it says."""

    kind: type[Exception]
    message: str

    def error(self) -> Exception:
        """The error, to be raised."""
        error = self.kind.__new__(self.kind)
        error.args = (self.message,)
        return error
