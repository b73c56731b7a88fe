"""Compiles equal graphs once: most of a drawing's time with a tiny model goes into that.

What is shared is OpenVINO's compiled model alone. Sessions, and what they read, are each test's own.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openvino as ov
import pytest

from vinograph.runtime import sessions
from vinograph.runtime.sections import Section
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import GraphSource

_MOST = 40
# A file says at its end by which version it was written; a graph that was built just now doesn't.
_LAST_NOTES = re.compile(rb"<rt_info(?: />|>(?:(?!<rt_info).)*</rt_info>)\s*</net>\s*$", re.DOTALL)


class CompiledOnce:
    """The models compiled last, by the graph, its weights and the settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._compiled: OrderedDict[tuple[str, ...], tuple[ov.CompiledModel, GraphSource]] = OrderedDict()
        self._lock = threading.Lock()
        self.counts = {"compiled": 0, "shared": 0}

    def compile(
        self, core: ov.Core, source: GraphSource, model: ov.Model, device: str, settings: Mapping[str, Any]
    ) -> ov.CompiledModel:
        """``model``, compiled now or before. What is compiled refers to memory of its source, which is kept, too."""
        key = (*self._digests(model), device, repr(sorted(settings.items())))
        with self._lock:
            found = self._compiled.get(key)
            self.counts["compiled" if found is None else "shared"] += 1
        compiled = found or (core.compile_model(model, device, settings), source)
        with self._lock:
            self._compiled[key] = compiled
            self._compiled.move_to_end(key)
            while len(self._compiled) > _MOST:
                self._compiled.popitem(last=False)
        return compiled[0]

    def free(self) -> None:
        """Free all; what a session holds stays until it is released."""
        with self._lock:
            self._compiled.clear()

    def _digests(self, model: ov.Model) -> tuple[str, ...]:
        # Sessions compile on threads of their own, several at once.
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            files = Path(folder, "graph.xml"), Path(folder, "graph.bin")
            ov.serialize(model, *files)
            xml, weights = (file.read_bytes() for file in files)
        return tuple(hashlib.sha256(each).hexdigest() for each in (_LAST_NOTES.sub(b"", xml), weights))


@contextmanager
def compiling_once(folder: Path) -> Iterator[CompiledOnce]:
    """Sessions compile equal graphs once within the block. ``folder`` is for graphs that are compared.

    The cache on the disk is off: what is compiled for it depends on how its files keep the weights.
    """
    compiled = CompiledOnce(folder)

    def compile_section(
        self: Session, shapes: Any, section: Section | None, settings: Mapping[str, Any]
    ) -> sessions._CompiledPart:
        assert section is None, "the models are tiny"
        shared = compiled.compile(self._core, self._source, self._read(shapes), self._device, settings)
        return sessions._CompiledPart(shared)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VINOGRAPH_CACHE_LIMIT", "0")
        patch.setattr(Session, "_compile_section", compile_section)
        yield compiled
    compiled.free()
