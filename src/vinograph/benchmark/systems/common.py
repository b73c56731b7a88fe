"""What all systems share: the task that each gets, the result that it returns, and helpers."""

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
_PREPARED_FROM = "made-of.json"


class RefusedError(Exception):
    """The system can't do the task; the message says why, and what would work."""


@dataclass(frozen=True)
class Task:
    """The task of one process: open ``source``, and draw ``count`` pictures at once of each prompt.

    Attributes:
        source: the checkpoint; for Vinograph any model.
        work: the folder with the files that were prepared from it.
        prompts: what to draw.
        seed: of each prompt's first picture.
        settings: all arguments of the drawing call, by diffusers' names.
        explicit: the names of those that the user gave.
        count: pictures that are drawn at once.
        vae: "full", "tiny", or None where the model has only one decoder.
        device: where to compute.
        precision: in what to compute.
        memory: Vinograph's setting of that name.
        sources: the other sources that Vinograph opens its model with.
        prior: the checkpoint of Würstchen's prior, where that is published apart.
        variant: which of the system's ways to draw, such as its weights; None for the usual one.
    """

    source: str
    work: str
    prompts: Sequence[str]
    seed: int
    settings: Mapping[str, Any]
    explicit: Sequence[str] = ()
    count: int = 1
    vae: str | None = None
    device: str | Mapping[str, str] = "CPU"
    precision: str | Mapping[str, str] = "auto"
    memory: str = "auto"
    sources: Mapping[str, str] = field(default_factory=dict)
    prior: str | None = None
    variant: str | None = None

    @property
    def seeds(self) -> list[int]:
        """The seeds of the pictures that are drawn at once."""
        return [self.seed + index for index in range(self.count)]

    def compile_settings(self) -> dict[str, str]:
        """OpenVINO's settings: its defaults, unless the task sets a precision."""
        return {} if self.precision == "auto" else {"INFERENCE_PRECISION_HINT": str(self.precision)}


@dataclass(frozen=True)
class DrawResult:
    """Pictures as bytes [n, height, width, 3], and the seconds of each stage.

    ``computed`` names the device and the precision of each component.
    """

    pictures: Any
    stages: Mapping[str, float]
    computed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenedSystem:
    """A system that is ready to draw; ``same_noise`` says whether a seed's noise is torch's."""

    draw: Callable[[str], DrawResult]
    same_noise: bool = True


class Stopwatch:
    """Measures the seconds of each stage."""

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
        """Replace a method of ``owner`` by one that is timed."""
        plain = getattr(owner, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.timed(stage):
                return plain(*args, **kwargs)

        setattr(owner, method, call)

    def lap(self) -> dict[str, float]:
        """The seconds of each stage since the last lap."""
        seconds, self.seconds = self.seconds, {}
        return seconds


@contextmanager
def prepare_once(task: Task, folder: Path) -> Iterator[Path | None]:
    """Yield a temporary folder to prepare files in, renamed to ``folder`` when the block succeeds.

    Yields None where ``folder`` exists already.

    Raises:
        RefusedError: the files in ``folder`` were prepared from another checkpoint.
    """
    of = {"source": task.source, "prior": task.prior}
    if folder.is_dir():
        if json.loads((folder / _PREPARED_FROM).read_text(encoding="utf-8")) != of:
            raise RefusedError(f"{folder} was made of another checkpoint: name another folder by --work")
        yield None
        return
    making = folder.with_name(f".{folder.name}.{os.getpid()}")
    making.mkdir(parents=True)
    try:
        yield making
        (making / _PREPARED_FROM).write_text(json.dumps(of), encoding="utf-8")
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def accepted_settings(task: Task, takes: Sequence[str], what: str) -> dict[str, Any]:
    """The task's settings that a system's call takes. Defaults that it doesn't take are left out.

    Raises:
        RefusedError: the user gave settings that the call doesn't take; the message names them.
    """
    if strange := sorted(set(task.explicit) - set(takes)):
        raise RefusedError(f"{what} takes no {', '.join(strange)}")
    return {name: value for name, value in task.settings.items() if name in takes}
