"""Compiles, caches and frees the sessions of a model's components, and loads its tokenizers."""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph import __version__, folders
from vinograph.adapters.adaptation import NO_ADAPTERS, Adaptation
from vinograph.errors import RequestError
from vinograph.families.contract import Session
from vinograph.models.model import Model
from vinograph.models.sources import NetworkSource
from vinograph.resources import memory_installed
from vinograph.runtime.cache import Cache
from vinograph.runtime.scratch import LastingScratch
from vinograph.runtime.sessions import Session as ComponentSession
from vinograph.runtime.sources import GraphSource, IrFile
from vinograph.runtime.tuning import CacheKey, Measuring
from vinograph.text import Tokenizer
from vinograph.values import shown

Array = NDArray[np.float32]
InputObserver = Callable[[str, Mapping[str, NDArray[Any]]], None]
"""A function that is called with a component's name and its inputs."""


def per_component(
    value: str | Mapping[str, str], components: Mapping[str, Any], argument: str, default: str
) -> dict[str, str]:
    """A value for each component, from one for all, or from a mapping that leaves some at the ``default``.

    Raises:
        RequestError: it is neither, or it names a component that the model lacks; called ``argument`` there.
    """
    if isinstance(value, str):
        return dict.fromkeys(components, value)
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise RequestError(f"{argument} is {shown(value)}; give a text, or a mapping from component to one")
    for name in value:
        if name not in components:
            raise RequestError(f"{argument} names the component {shown(name)}; this model has {', '.join(components)}")
    return {name: value.get(name, default) for name in components}


class SessionPool(Mapping[str, Session]):
    """The components' sessions, each made when it is first used."""

    def __init__(
        self,
        model: Model,
        device: Mapping[str, str],
        precision: Mapping[str, str],
        memory: str,
        measuring: Measuring = Measuring.NEVER,
    ) -> None:
        self._model = model
        self._measuring = measuring
        self._memory = memory
        self._device = device
        self._precision = precision
        self._opened: dict[str, ComponentSession] = {}
        self._scratches: dict[str, LastingScratch] = {}
        self._cache = Cache()
        self._most_weights = memory_installed() / 4 or math.inf  # bytes of a component that stays compiled
        self._drawings = 0
        self._adaptation = NO_ADAPTERS
        self.observer: InputObserver | None = None

    def __getitem__(self, name: str) -> Session:
        session, observer = self._open(name), self.observer
        if observer is None:
            return session

        def observed(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
            observer(name, inputs)
            return session(inputs)

        return observed

    def _open(self, name: str) -> ComponentSession:
        if name not in self._opened:
            self._opened[name] = ComponentSession(
                source_of(self._model, name, self._adaptation, self._emptied_scratch(name)),
                self._device[name],
                self._precision[name],
                cache_key(self._model, name, self._cache, self._adaptation),
                self._measuring,
            )
        return self._opened[name]

    def adapt(self, adaptation: Adaptation) -> None:
        """Change the components' weights; those that change are compiled anew when they are used.

        Raises:
            RequestError: a drawing is under way.
        """
        if self._drawings:
            raise RequestError("adapters can't change while a picture is drawn: finish or close its stream first")
        before, self._adaptation = self._adaptation, adaptation
        for name in list(self._opened):
            if before.identity(name) != adaptation.identity(name):
                self._opened.pop(name).release()
        for name in list(self._scratches):
            if not adaptation.changes(name):
                del self._scratches[name]

    def _emptied_scratch(self, name: str) -> LastingScratch:
        """Files for the changed weights of a component, which take the place of earlier ones."""
        scratch = self._scratches.setdefault(name, scratch_for(name))
        scratch.empty()
        return scratch

    def __iter__(self) -> Iterator[str]:
        return iter(self._model.manifest.components)

    def __len__(self) -> int:
        return len(self._model.manifest.components)

    def __contains__(self, name: object) -> bool:
        return name in self._model.manifest.components

    def prepare(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Start to compile a component for inputs of these shapes, if memory allows two at once."""
        if self._memory != "low" and not any(map(self._is_large, self)):
            self._open(name).prepare(shapes)

    def release(self, name: str) -> None:
        """Free a component that the current drawing no longer needs, if memory is short."""
        if name in self._opened and (self._memory == "low" or self._is_large(name)):
            self._opened[name].release()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Keep the sessions' settings unchanged within the block, for the whole of a drawing."""
        if not self._drawings:
            for each in self._opened.values():
                each.begin_drawing()
        self._drawings += 1
        try:
            yield
        finally:
            self._drawings -= 1

    def store_compiled(self) -> None:
        """Start to write large compiled components to the cache, in a background thread.

        The components that took longest to compile are written first. The process waits for the
        thread before it exits.
        """
        pending = [session for session in self._opened.values() if session.unsaved_compile_seconds]
        if not pending:
            return
        pending.sort(key=lambda session: session.unsaved_compile_seconds, reverse=True)

        def work() -> None:
            for session in pending:
                session.save_pending()

        with contextlib.suppress(RuntimeError):  # no more threads: then the next process compiles again
            threading.Thread(target=work, name="write compiled components").start()

    def _is_large(self, name: str) -> bool:
        """Whether a component's weights take more than a quarter of this machine's memory."""
        return self._model.weights_size(name) > self._most_weights

    def devices_and_precisions(self) -> dict[str, str]:
        """Devices and precision of each component that has run."""
        return {
            name: f"{','.join(session.execution_devices)} {session.precision}{_measured_setting(session)}"
            for name, session in self._opened.items()
            if session.execution_devices
        }

    def settings(self) -> dict[str, str]:
        """The settings of each component with low-bit weights that has run on the CPU."""
        used = {name: session.settings_used for name, session in self._opened.items()}
        return {name: " and ".join(map(str, settings)) for name, settings in used.items() if settings}

    def take_warnings(self) -> list[str]:
        """Warnings about components that ran in another precision, and about cache failures."""
        differing: dict[tuple[str, str], list[str]] = {}
        for name, session in self._opened.items():
            if session.execution_devices and self._precision[name] not in ("auto", session.precision):
                differing.setdefault((self._precision[name], session.precision), []).append(name)
        return self._cache.take_warnings() + [
            f"precision {requested} was asked for, which this device doesn't compute; {', '.join(names)} ran in {ran}"
            for (requested, ran), names in differing.items()
        ]


@dataclass(frozen=True)
class ExtendedSource:
    """A component's graph, to which ``extend`` adds what its files don't have."""

    source: GraphSource
    extend: Callable[[Any], None]

    @property
    def name(self) -> str:
        """The component's name."""
        return self.source.name

    @property
    def f16_safe(self) -> bool:
        """Whether the component can be computed in f16."""
        return self.source.f16_safe

    @property
    def remedy(self) -> str:
        """What to do if it computes NaN in f32."""
        return self.source.remedy

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the graph is read from."""
        return self.source.files

    @property
    def size(self) -> int:
        """Bytes of the weights in the files."""
        return self.source.size

    def read(self) -> Any:
        """The extended graph, read anew."""
        graph = self.source.read()
        self.extend(graph)
        return graph


def scratch_for(name: str) -> LastingScratch:
    """Files without names, in the folder of the cache, for a component's weights with adapters."""
    places = (folders.cache(), Path(tempfile.gettempdir()))
    return LastingScratch(places, f"the weights of {name} with adapters")


def source_of(
    model: Model, name: str, adaptation: Adaptation = NO_ADAPTERS, scratch: LastingScratch | None = None
) -> GraphSource:
    """Source of a component's graph: a bundle's IR, or a network over a checkpoint's weights.

    ``scratch`` holds weights that adapters change; None makes one.
    """
    extend = model.extension(name)
    source = _source_in_files(model, name, adaptation, scratch or scratch_for(name))
    return source if extend is None else ExtendedSource(source, extend)


def _source_in_files(model: Model, name: str, adaptation: Adaptation, scratch: LastingScratch) -> GraphSource:
    plan, component = model.component_plan(name), model.manifest.components[name]
    if plan is not None:
        return NetworkSource(adaptation.plan(plan, scratch.room))
    ir = IrFile(name, model.path / component.file, component.f16_safe)
    return adaptation.ir(ir, model, scratch.room) if adaptation.changes(name) else ir


def has_low_bit_weights(model: Model, name: str) -> bool:
    """Whether a component's weights are stored in int8 or int4."""
    return model.manifest.components[name].weights in ("int8", "int4")


def cache_key(model: Model, name: str, cache: Cache, adaptation: Adaptation = NO_ADAPTERS) -> CacheKey:
    """Key under which ``cache`` stores a component of the model, as adapters change it."""
    plain, changed = model.fingerprint(name), adaptation.identity(name)
    contents = hashlib.sha256(repr((plain, changed, __version__)).encode()).hexdigest() if changed else plain
    return CacheKey(model.manifest.name, name, contents, has_low_bit_weights(model, name), cache, plain)


def _measured_setting(session: ComponentSession) -> str:
    """Text on the fastest measured setting, to be appended to the precision."""
    group = session.setting.group
    return "" if group is None else f", groups of {group}" if group else ", activations not rounded"


class Tokenizers(Mapping[str, Tokenizer]):
    """A model's tokenizers, each read when it is first used."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._opened: dict[str, Tokenizer] = {}

    def __getitem__(self, name: str) -> Tokenizer:
        if name not in self._opened:
            self._opened[name] = self._model.tokenizer(name)
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._model.tokenizers)

    def __len__(self) -> int:
        return len(self._model.tokenizers)
