"""What a family of models is made of, and its generator of steps.

A family gets :class:`Parts`: sessions (callables from named arrays to named arrays), tokenizers and the numbers
of its manifest. It never sees OpenVINO. A new family is one folder beside this file, and one
line in :mod:`vinograph.families.registry`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinograph.request import Request, Signature
from vinograph.schema import Kind
from vinograph.text import Tokenizer

Array = NDArray[np.float32]
Session = Callable[[Mapping[str, NDArray[Any]]], dict[str, Array]]


def _nothing(_name: str, _shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Prepare nothing: what isn't prepared is compiled when it is called."""


def _nothing_to_compare(_settings: Mapping[str, Any]) -> None:
    """Accept the settings: no two of them depend on each other."""


def _keep(_name: str) -> None:
    """Free nothing: there is memory enough."""


class Remembered:
    """The arrays that were computed last, by what they were computed from."""

    def __init__(self, most: int = 32) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Array] = OrderedDict()

    def get(self, key: Hashable) -> Array | None:
        """What was computed from ``key``, if it is still here."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: Hashable, value: Array) -> Array:
        """Keep ``value``, in place of the one that was not asked for longest, and return it."""
        self._kept[key] = value
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return value


@dataclass(frozen=True)
class Parts:
    """What a family works with: the opened components of one bundle.

    ``outputs`` has the shape of each component's outputs, with a name in place of a size that varies.
    ``prepare(name, shapes)`` says what a component will soon be given, so that it is compiled beside the work at hand.
    A family calls ``done_with`` with the name of a component that this drawing needs no more: where memory is short,
    it is freed until it is wanted again. What is ``remembered`` lasts as long as the pipeline.
    """

    sessions: Mapping[str, Session]
    tokenizers: Mapping[str, Tokenizer]
    config: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    limits: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, tuple[int | str, ...]]] = field(default_factory=dict)
    prepare: Callable[[str, Mapping[str, tuple[int, ...]]], None] = _nothing
    done_with: Callable[[str], None] = _keep
    remembered: Remembered = field(default_factory=Remembered)


@dataclass(frozen=True)
class Step:
    """A step that has just been done: ``index`` of ``total`` in ``stage``, counted from 1."""

    stage: str
    index: int
    total: int
    _preview: Callable[[], Image.Image] | None = field(default=None, repr=False, compare=False)

    def preview(self) -> Image.Image | None:
        """What the picture would be if it ended here, small; None where the stage shows nothing.

        It is worked out when asked for, which takes up to one decoder step.
        """
        return None if self._preview is None else self._preview()


@dataclass
class Drawing:
    """What a call ends with: ``images`` [n, height, width, 3] in [0, 1], or ``latents``, or ``image_embeddings``."""

    images: Array | None = None
    latents: Array | None = None
    image_embeddings: Array | None = None
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall-clock seconds of the block to ``timings[stage]``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start


Steps = Generator[Step, None, Drawing]


@dataclass(frozen=True, kw_only=True)
class Call(Signature):
    """One thing that a family does: its arguments, and how it is done.

    ``about`` says what it does. ``run`` gets the resolved request, of the family's kind; it refuses at once what can't
    be done, and returns the generator that does the work. ``components`` are those without which the call can't be
    made, and ``remedy`` says how a model gets them.
    """

    about: str
    run: Callable[[Parts, Any], Steps]
    components: tuple[str, ...] = ()
    remedy: str = "convert the model again with all of its components"


@dataclass(frozen=True)
class Family:
    """A family of models.

    ``calls`` holds "generate", and whatever else the family does. ``options`` says which argument of "generate"
    each of the command line's options sets. ``config`` declares the numbers, or lists of them, that it reads in the
    manifest, and ``check_config`` compares them with each other; ``tokenizers`` are those that it needs;
    ``check_scheduler`` checks the scheduler's settings; ``check_outputs`` checks the shapes of the components' outputs
    that it reads numbers from. The checks raise :class:`vinograph.schema.SchemaError`. ``request`` declares the
    family's own arguments, where :class:`vinograph.request.Request` doesn't have all that its calls take.
    """

    name: str
    title: str
    calls: Mapping[str, Call]
    options: Mapping[str, str]
    config: Mapping[str, Kind] = field(default_factory=dict)
    tokenizers: tuple[str, ...] = ()
    check_config: Callable[[Mapping[str, Any]], None] = _nothing_to_compare
    check_scheduler: Callable[[Mapping[str, Any]], None] = _nothing_to_compare
    check_outputs: Callable[[Mapping[str, Any]], None] = _nothing_to_compare
    request: type[Request] = Request

    def defaults(self) -> dict[str, dict[str, Any]]:
        """The defaults of every call, for a manifest; arguments without one are left out."""
        return {
            name: {argument: value for argument, value in call.takes.items() if value is not None}
            for name, call in self.calls.items()
        }
