"""What the systems have in common: the task that each is given, and what it gives back."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPACED = "spaced"
_MADE_OF = "made-of.json"


class RefusedError(Exception):
    """The system can't do what the task asks; the text says why, and what would do."""


@dataclass(frozen=True)
class Task:
    """What one process does: open ``model``, and draw a picture (or ``count`` at once) of each prompt, from ``seed``.

    ``settings`` are the arguments of the drawing call by diffusers' names, in full; of these ``told`` are those that
    the user gave. ``source`` is the checkpoint, or for Vinograph the bundle; ``work`` holds what was made of it.
    ``vae`` is "full", "tiny", or None where the model has but one decoder.
    """

    source: str
    work: str
    prompts: Sequence[str]
    seed: int
    settings: Mapping[str, Any]
    told: Sequence[str] = ()
    count: int = 1
    vae: str | None = None
    device: str | Mapping[str, str] = "CPU"
    precision: str | Mapping[str, str] = "auto"
    memory: str = "auto"
    prior: str | None = None

    @property
    def seeds(self) -> list[int]:
        """Of the pictures that are drawn at once."""
        return [self.seed + index for index in range(self.count)]

    def compile_settings(self) -> dict[str, str]:
        """OpenVINO's own defaults, but for a precision that was asked for."""
        return {} if self.precision == "auto" else {"INFERENCE_PRECISION_HINT": str(self.precision)}


@dataclass(frozen=True)
class Drawn:
    """Pictures as bytes [n, height, width, 3], and the seconds of each stage. ``computed`` says on and in what.

    ``once`` is what was done beside drawing, and won't be for the next picture, in sentences.
    """

    pictures: Any
    stages: Mapping[str, float]
    computed: Mapping[str, str] = field(default_factory=dict)
    once: Sequence[str] = ()


@dataclass(frozen=True)
class Opened:
    """A system that is ready to draw. ``same_noise`` is False where its noise is not torch's of the same seed."""

    draw: Callable[[str], Drawn]
    same_noise: bool = True


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to those of ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def time_calls(self, owner: Any, method: str, stage: str) -> None:
        """Have each call of a method of ``owner`` timed."""
        plain = getattr(owner, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.timed(stage):
                return plain(*args, **kwargs)

        setattr(owner, method, call)

    def lap(self) -> dict[str, float]:
        """The seconds since the last lap."""
        seconds, self.seconds = self.seconds, {}
        return seconds


@contextmanager
def made_once(task: Task, folder: Path) -> Iterator[Path | None]:
    """A folder beside ``folder`` to make what is wanted in, which gets its name when the block ends well; None: it is
    there already.

    Raises:
        RefusedError: what is there was made of another checkpoint.
    """
    of = {"source": task.source, "prior": task.prior}
    if folder.is_dir():
        if json.loads((folder / _MADE_OF).read_text(encoding="utf-8")) != of:
            raise RefusedError(f"{folder} was made of another checkpoint: name another folder by --work")
        yield None
        return
    making = folder.with_name(f".{folder.name}.{os.getpid()}")
    making.mkdir(parents=True)
    try:
        yield making
        (making / _MADE_OF).write_text(json.dumps(of), encoding="utf-8")
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def without_untold(task: Task, takes: Sequence[str], what: str) -> dict[str, Any]:
    """The settings that a call takes. What the user gave and it doesn't take is refused; what nobody gave is left out.

    Raises:
        RefusedError: naming them.
    """
    if strange := sorted(set(task.told) - set(takes)):
        raise RefusedError(f"{what} takes no {', '.join(strange)}")
    return {name: value for name, value in task.settings.items() if name in takes}
