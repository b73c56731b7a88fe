"""The models that a page offers, and their pipelines."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from vinograph.errors import RequestError, VinographError
from vinograph.models import catalog
from vinograph.pipeline import Pipeline

_KEPT = 2  # pipelines that have drawn: as many as a comparison takes

_OF_THE_WORLD = (
    "a red house on a snowy hill at night",
    "two green trees in the middle of a meadow on a clear day",
    "a yellow boat on the sea at sunset",
    "a white lighthouse on the right under a stormy sky",
)
_OF_ANYTHING = (
    "an astronaut riding a horse, oil painting",
    "a lighthouse on a cliff in a storm, dramatic light",
    "a bowl of cherries on a linen cloth, studio photograph",
    "a small robot reading in a library, watercolour",
)


class Models:
    """Models by the reference that ``vinograph generate --model`` takes for them.

    Those that were ``named`` come first, then the embedded ones, then those in the models folder. ``problems`` says
    which of the latter can't be offered, and why.
    """

    def __init__(self, named: Sequence[str], device: str | Mapping[str, str]) -> None:
        """Open each once.

        Raises:
            VinographError: one that was ``named`` can't be used.
        """
        self.device = device
        self.problems: list[str] = []
        self._pipelines = {reference: self._open(reference) for reference in named}
        self._drawn: list[str] = []
        self._lock = threading.Lock()
        for name in dict.fromkeys(path.name for path in (*catalog.embedded(), *catalog.found())):
            if name in self._pipelines:
                continue
            try:
                self._pipelines[name] = self._open(name)
            except VinographError as error:
                self.problems.append(str(error))

    def _open(self, reference: str) -> Pipeline:
        return Pipeline.from_pretrained(reference, device=self.device)

    @property
    def references(self) -> list[str]:
        """What can be chosen."""
        return list(self._pipelines)

    def look_at(self, reference: str) -> Pipeline:
        """The pipeline, to ask what it takes. Nothing is loaded for that.

        Raises:
            RequestError: there is no such model.
        """
        if reference not in self._pipelines:
            raise RequestError("choose a model")
        return self._pipelines[reference]

    def draw_with(self, reference: str) -> Pipeline:
        """The pipeline, to draw with. What was loaded for the one that waited longest is freed."""
        with self._lock:
            self._drawn = [*(each for each in self._drawn if each != reference), reference]
            if len(self._drawn) > _KEPT:
                forgotten = self._drawn.pop(0)
                self._pipelines[forgotten] = self._open(forgotten)
            return self._pipelines[reference]

    def examples(self, reference: str) -> tuple[str, ...]:
        """Prompts that the model draws well: those of the picture-book world where it was trained on that."""
        source = self.look_at(reference).model.manifest.source.id
        return _OF_THE_WORLD if source in {path.name for path in catalog.embedded()} else _OF_ANYTHING
