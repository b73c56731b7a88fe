"""The models of a process that draws: each is loaded when it is first used."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping

from vinograph.adapters.file import locate
from vinograph.pipeline import Pipeline, replace_defaults
from vinograph.resources import memory_resident
from vinograph.serve.configuration import ServedModel


def open_served(model: ServedModel) -> Pipeline:
    """Open a model with the defaults and the adapters of its configuration; this reads no weights.

    Raises:
        VinographError: it can't be used.
    """
    adapters = {str(locate(name)): weight for name, weight in model.adapters.items()}
    pipe = Pipeline.from_pretrained(model.source, model.device, model.precision, adapters=adapters)
    replace_defaults(pipe, model.defaults)
    return pipe


class WorkerModels:
    """Pipelines by their models' names; those that weren't used for longest are dropped."""

    def __init__(self, models: Mapping[str, ServedModel], most: int, memory: int | None) -> None:
        """Keep at most so many models, and fewer where the process has more than ``memory`` bytes."""
        self._models = models
        self._most = most
        self._memory = memory
        self._pipelines: dict[str, Pipeline] = {}  # the one that was used last stands last

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that are in memory."""
        return tuple(self._pipelines)

    def get(self, name: str) -> Pipeline:
        """The pipeline of a model, which is opened where it isn't in memory.

        Raises:
            VinographError: it can't be opened.
        """
        if name in self._pipelines:
            self._pipelines[name] = self._pipelines.pop(name)
            return self._pipelines[name]
        self._drop(len(self._pipelines) - self._most + 1)
        self._pipelines[name] = open_served(self._models[name])
        return self._pipelines[name]

    def trim(self) -> None:
        """Drop models, but for the one that was used last, while there is too much in memory."""
        while self._memory is not None and len(self._pipelines) > 1 and memory_resident() > self._memory:
            self._drop(1)

    def clear(self) -> None:
        """Drop all models."""
        self._drop(len(self._pipelines))

    def _drop(self, count: int) -> None:
        for name in list(self._pipelines)[: max(0, count)]:
            del self._pipelines[name]
        if count > 0:
            gc.collect()
            _return_heap()


def _return_heap() -> None:
    """Return free heap to the system, which glibc would keep."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
