"""Seeded fuzzers of everything that somebody else can write: files, requests, posts.

Each module ``target_*.py`` here declares ``TARGETS``. A :class:`Target` makes one attempt from a random generator and
raises AssertionError where the program did something that it never should. `make test` runs a minute of them,
`make test-all` ten, and ``python -m tests.fuzz --minutes 30`` as long as it is told.
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
    """One attempt: everything that it does follows from ``random``; it may write into ``folder``, which is empty."""

    def __call__(self, random: Random, folder: Path) -> None: ...


@dataclass(frozen=True)
class Target:
    """Something to attack. ``prepare`` makes, once a process, the function that attempts.

    ``attempts`` is how many of them the short run of the tests makes.
    """

    name: str
    prepare: Callable[[Path], Attempt]
    attempts: int


def targets() -> list[Target]:
    """All of them, by name."""
    found = [
        target
        for module in pkgutil.iter_modules(__path__)
        if module.name.startswith("target_")
        for target in importlib.import_module(f"{__name__}.{module.name}").TARGETS
    ]
    return sorted(found, key=lambda target: target.name)
