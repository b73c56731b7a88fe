"""Seeded fuzzers of all foreign input: files, requests and posts.

Each module ``target_*.py`` here declares ``TARGETS``. A :class:`Target` makes one attempt from a random generator and
raises AssertionError where the program did something that it never should. `make test` makes some attempts,
`make test-all` thirty times as many, and ``python -m tests.fuzz --minutes 30`` attacks as long as it is told.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol


class Attempt(Protocol):
    """One attempt, determined by ``random``; it may write into the empty folder ``folder``."""

    def __call__(self, random: Random, folder: Path) -> None: ...


@dataclass(frozen=True)
class Target:
    """A target of fuzzing; ``prepare`` makes the function that attempts, once per process.

    ``attempts`` is about what a minute allows all targets together: the tests make a share of them, or many times more.
    """

    name: str
    prepare: Callable[[Path], Attempt]
    attempts: int


def targets() -> list[Target]:
    """All targets by name."""
    found = [
        target
        for module in pkgutil.iter_modules(__path__)
        if module.name.startswith("target_")
        for target in importlib.import_module(f"{__name__}.{module.name}").TARGETS
    ]
    return sorted(found, key=lambda target: target.name)
