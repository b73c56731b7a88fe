"""The contract between a family of models and the pipeline that drives it.

A family gets its :class:`Components`: sessions (callables from named arrays to named arrays),
tokenizers, and its configuration. It never sees OpenVINO. A new family is one folder beside this
file, and one line in :mod:`vinograph.families.registry`.
"""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinograph.families.known import FEW_STEP, FewStep, recognize
from vinograph.families.sizes import SizeLimits
from vinograph.request import Request, Signature
from vinograph.text import Tokenizer

Array = NDArray[np.float32]
Session = Callable[[Mapping[str, NDArray[Any]]], dict[str, Array]]
Outputs = Mapping[str, Mapping[str, Sequence[int | str]]]
"""The shapes of each component's outputs, with a name in place of a size that varies."""
Config_co = TypeVar("Config_co", covariant=True)


def _prepare_nothing(_name: str, _shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Prepare nothing: what isn't prepared is compiled when it is called."""


def _release_nothing(_name: str) -> None:
    """Release nothing: there is memory enough."""


class LRUCache:
    """The arrays that were used last, by what they were computed from."""

    def __init__(self, size: int = 32) -> None:
        self._size = size
        self._arrays: OrderedDict[Hashable, Array] = OrderedDict()

    def get(self, key: Hashable) -> Array | None:
        """The array of ``key``, or None where it is no longer there."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
        return self._arrays.get(key)

    def put(self, key: Hashable, value: Array) -> Array:
        """Store ``value``, drop the array that was unused for longest, and return ``value``."""
        self._arrays[key] = value
        if len(self._arrays) > self._size:
            self._arrays.popitem(last=False)
        return value

    def clear(self) -> None:
        """Drop all arrays."""
        self._arrays.clear()


@dataclass(frozen=True)
class ManifestEntries:
    """The entries of a manifest that a family reads its configuration from."""

    config: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    outputs: Outputs = field(default_factory=dict)


@dataclass(frozen=True)
class Components(Generic[Config_co]):
    """The components of one model, as its family works with them.

    ``config`` is the family's own type, and ``sizes`` are those that the model draws.
    ``prepare(name, shapes)`` compiles a component in the background for inputs of these shapes.
    ``release(name)`` says that the call needs a component no more. Where memory is short, it is
    freed until it is wanted again. ``cache`` lasts as long as the pipeline.
    """

    sessions: Mapping[str, Session]
    tokenizers: Mapping[str, Tokenizer]
    config: Config_co
    sizes: SizeLimits
    prepare: Callable[[str, Mapping[str, tuple[int, ...]]], None] = _prepare_nothing
    release: Callable[[str], None] = _release_nothing
    cache: LRUCache = field(default_factory=LRUCache)


@dataclass(frozen=True)
class Step:
    """A step that has just been done: ``index`` of ``total`` in ``stage``, counted from 1."""

    stage: str
    index: int
    total: int
    _preview: Callable[[], Image.Image] | None = field(default=None, repr=False, compare=False)

    def preview(self) -> Image.Image | None:
        """A small picture of the result as predicted so far; None where the stage shows nothing.

        It is computed when it is asked for, which takes up to one decoder step.
        """
        return None if self._preview is None else self._preview()


@dataclass
class Output:
    """The result of a call.

    It is ``images`` [n, height, width, 3] in [0, 1], ``latents`` or ``image_embeddings``.

    ``timings`` are seconds per stage, and ``report`` holds figures that the call measured.
    ``upscaled`` images are larger than the request's height and width say.
    """

    images: Array | None = None
    latents: Array | None = None
    image_embeddings: Array | None = None
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)
    upscaled: bool = False

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall-clock seconds of the block to ``timings[stage]``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start


Steps = Generator[Step, None, Output]


@dataclass(frozen=True, kw_only=True)
class Call(Signature):
    """One thing that a family does: its arguments, and how it is done.

    ``about`` says what it does. ``run`` gets the resolved request, of the family's kind; it refuses
    at once what can't be done, and returns the generator that does the work. ``components`` are
    those without which the call can't be made, and ``remedy`` says how a model gets them.
    """

    about: str
    run: Callable[[Components[Any], Any], Steps]
    components: tuple[str, ...] = ()
    remedy: str = "convert the model again with all of its components"

    def with_defaults(self, defaults: Mapping[str, Any]) -> Call:
        """The call with a model's own ``defaults``, which also override conditional defaults."""
        takes = MappingProxyType({**self.takes, **defaults})
        conditional = {
            argument: {name: value for name, value in changed.items() if takes[name] == self.takes[name]}
            for argument, changed in self.conditional_defaults.items()
        }
        return dataclasses.replace(self, takes=takes, conditional_defaults=conditional)


def _read_nothing(_entries: ManifestEntries) -> None:
    """Read no configuration: the family has none."""


@dataclass(frozen=True)
class DenoisingStage:
    """A ``denoiser`` of "generate", with the arguments that say how often it is evaluated.

    Its outputs can be extrapolated where it is ``extrapolated``.
    """

    denoiser: str
    steps: str
    guidance_scale: str
    extrapolated: bool = True


@dataclass(frozen=True)
class WordEmbeddings:
    """A text encoder that takes the vectors of learned words, and its tokenizer.

    ``key`` is the name of the vectors in a file that has those of all the family's encoders.
    """

    key: str
    text_encoder: str
    tokenizer: str


@dataclass(frozen=True)
class Family:
    """A family of models.

    ``calls`` holds "generate", and whatever else the family does. ``options`` says which argument
    of "generate" each option of the command line sets. ``read_config`` makes the family's
    configuration of a manifest's entries; it raises :class:`vinograph.schema.SchemaError` for a
    value that makes no sense, and ModelError for a scheduler that Vinograph doesn't compute.
    ``tokenizers`` are those that the family needs. ``denoising`` are the stages of "generate" whose
    evaluations can be counted beforehand. ``word_embeddings`` are the text encoders that
    take vectors of words that were learned by textual inversion. ``few_step`` are the distilled
    models and adapters that are known by name. ``request`` declares arguments of the family's own,
    where :class:`vinograph.request.Request` lacks some that its calls take.
    """

    name: str
    title: str
    calls: Mapping[str, Call]
    options: Mapping[str, str]
    read_config: Callable[[ManifestEntries], Any] = _read_nothing
    tokenizers: tuple[str, ...] = ()
    denoising: tuple[DenoisingStage, ...] = ()
    word_embeddings: tuple[WordEmbeddings, ...] = ()
    few_step: tuple[FewStep, ...] = ()
    request: type[Request] = Request

    def distilled(self, config: Mapping[str, Any]) -> FewStep | None:
        """What a model was distilled to, by its manifest's ``config``; None if it isn't known."""
        return next((each for each in self.few_step if each.title == config.get(FEW_STEP)), None)

    def distilled_by_adapter(self, name: str) -> FewStep | None:
        """What an adapter distils a model to, by its file's path or its hub id; None if it isn't known."""
        return recognize(self.few_step, name)

    def defaults(self) -> dict[str, dict[str, Any]]:
        """The defaults of every call, for a manifest; arguments without one are left out."""
        return {
            name: {argument: value for argument, value in call.takes.items() if value is not None}
            for name, call in self.calls.items()
        }
