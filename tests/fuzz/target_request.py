"""Random requests to small models of every family: odd objects, and odd combinations."""

from __future__ import annotations

import warnings
from pathlib import Path
from random import Random

from tests.fuzz import Attempt, Target
from tests.odd_values import CALLS, answer, odd_arguments, small_pipelines
from vinograph.families import registry


def _prepare(prepared: Path) -> Attempt:
    pipes = small_pipelines(prepared)

    def attempt(random: Random, folder: Path) -> None:
        del folder
        family, call = random.choice(CALLS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numbers may overflow to infinity, which is then reported
            answer(
                pipes[family],
                call,
                odd_arguments(pipes[family].calls[call], random, registry.family(family).request),
                make=True,
            )

    return attempt


TARGETS = [Target("request", _prepare, 60)]
