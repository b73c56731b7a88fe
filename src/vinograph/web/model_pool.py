"""The models that the page offers, and their pipelines."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from vinograph.errors import RequestError, VinographError
from vinograph.models import catalog
from vinograph.pipeline import Pipeline

MAX_LOADED = 2  # pipelines that keep their weights: as many as a comparison takes

_STORYBOOK_PROMPTS = (
    "a red house on a snowy hill at night",
    "two green trees in the middle of a meadow on a clear day",
    "a yellow boat on the sea at sunset",
    "a white lighthouse on the right under a stormy sky",
)
_GENERAL_PROMPTS = (
    "an astronaut riding a horse, oil painting",
    "a lighthouse on a cliff in a storm, dramatic light",
    "a bowl of cherries on a linen cloth, studio photograph",
    "a small robot reading in a library, watercolour",
)


class Models(Protocol):
    """The models that a page offers, by the references that its visitors choose from."""

    @property
    def references(self) -> list[str]:
        """The models that can be chosen."""
        ...

    def get(self, reference: str) -> Pipeline:
        """The pipeline, to ask for its arguments and limits; this loads no weights.

        Raises:
            RequestError: there is no such model.
        """
        ...

    def examples(self, reference: str) -> tuple[str, ...]:
        """Example prompts for the model."""
        ...

    def source(self, reference: str) -> str:
        """What ``vinograph generate --model`` takes for the model."""
        ...

    def device(self, reference: str) -> str | Mapping[str, str]:
        """Where the model computes."""
        ...


class ModelPool:
    """Pipelines by the reference that ``vinograph generate --model`` takes for their model.

    Models that were ``named`` come first, then the embedded ones, then those in the models folder.
    ``problems`` says which of the latter can't be offered, and why.
    """

    def __init__(self, named: Mapping[str, Mapping[str, str]], device: str | Mapping[str, str]) -> None:
        """Open each model once; those that are ``named`` with their other sources, such as a ``base``.

        Raises:
            VinographError: a model that was ``named`` can't be used.
        """
        self._device = device
        self._sources = named
        self.problems: list[str] = []
        self._pipelines = {reference: self._open(reference) for reference in named}
        self._recently_used: list[str] = []  # the latest stands last
        self._lock = threading.Lock()
        for name in dict.fromkeys(path.name for path in (*catalog.embedded(), *catalog.installed())):
            if name in self._pipelines:
                continue
            try:
                self._pipelines[name] = self._open(name)
            except VinographError as error:
                self.problems.append(str(error))

    def _open(self, reference: str) -> Pipeline:
        other = self._sources.get(reference, {})
        return Pipeline.from_pretrained(reference, device=self._device, vae=other.get("vae"), base=other.get("base"))

    @property
    def references(self) -> list[str]:
        """The models that can be chosen."""
        return list(self._pipelines)

    def get(self, reference: str) -> Pipeline:
        """The pipeline, to ask for its arguments and limits; this loads no weights.

        Raises:
            RequestError: there is no such model.
        """
        if reference not in self._pipelines:
            raise RequestError("choose a model")
        return self._pipelines[reference]

    def acquire(self, reference: str) -> Pipeline:
        """The pipeline, to draw with; the least recently used one gives up its weights for it."""
        with self._lock:
            self._recently_used = [*(each for each in self._recently_used if each != reference), reference]
            if len(self._recently_used) > MAX_LOADED:
                evicted = self._recently_used.pop(0)
                self._pipelines[evicted] = self._open(evicted)  # a fresh one has loaded nothing
            return self._pipelines[reference]

    def examples(self, reference: str) -> tuple[str, ...]:
        """Example prompts for the model: of the picture-book world where it was trained on that."""
        return example_prompts(self.get(reference))

    def source(self, reference: str) -> str:
        """The reference itself."""
        return reference

    def device(self, _reference: str) -> str | Mapping[str, str]:
        """The device of all models."""
        return self._device


def example_prompts(pipe: Pipeline) -> tuple[str, ...]:
    """Prompts of the picture-book world for a model that was trained on that, and general ones for others."""
    source = pipe.model.manifest.source.id
    return _STORYBOOK_PROMPTS if source in {path.name for path in catalog.embedded()} else _GENERAL_PROMPTS
