"""One component's compiled models, kept in the cache for the next process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from vinograph.runtime import tuning
from vinograph.runtime.cache import Cache
from vinograph.runtime.devices import GROUP_PROPERTY, machine
from vinograph.runtime.mappings import file_ranges
from vinograph.runtime.pages import MOST_HELD, mapped_ranges, release_pages, releasing
from vinograph.runtime.sources import GraphSource, IrFile
from vinograph.runtime.tuning import CacheKey, Shapes

# An export without weights has a tenth of their size or less. OpenVINO keeps some weights in it all
# the same, such as those of low-bit convolutions, which it has unpacked by then. Reading a large
# one costs what it saves.
_LARGEST_SHARE = 4  # a weightless export is kept if it has at most this part of the weights' size …
_ALWAYS_KEPT = 32_000_000  # … or at most so many bytes, which are read in no time
_WORTHWHILE_SECONDS = 2.0  # of compiling, from which on gigabytes are kept to save it
# An export with weights has up to so many times their size: int8 convolutions lie unpacked in it.
_GROWTH = 1.25


class ExportForm(Enum):
    """How a compiled model is kept: without weights, with them, or with them and mapped.

    Large ones are mapped.
    """

    WEIGHTLESS = "weightless"
    WITH_WEIGHTS = "with weights"
    MAPPED = "mapped"


_CACHE_MODES = {
    ExportForm.WEIGHTLESS: "OPTIMIZE_SIZE",
    ExportForm.WITH_WEIGHTS: "OPTIMIZE_SPEED",
    ExportForm.MAPPED: "OPTIMIZE_SPEED",
}


@dataclass(frozen=True)
class PendingExport:
    """What is still to be written for the next process, and the seconds that it took to compile."""

    blob_key: str
    shapes: Shapes
    seconds: float


@dataclass(frozen=True)
class LoadedExport:
    """A compiled model from the cache, and the buffer that it refers to without owning it."""

    model: ov.CompiledModel
    buffer: Any


class CompiledExports:
    """The exports of one component's compiled models, one for each set of shapes and settings."""

    def __init__(self, source: GraphSource, cache_key: CacheKey) -> None:
        self._source = source
        self._key = cache_key

    @property
    def _cache(self) -> Cache:
        return self._key.cache

    @property
    def form(self) -> ExportForm:
        """How the component is kept.

        A weightless export reads its weights from one file in OpenVINO's own format, which a
        checkpoint doesn't have. And low-bit convolutions lie unpacked in every export, so that a
        large weightless one saves nothing.
        """
        is_large = self._source.size > _ALWAYS_KEPT
        if isinstance(self._source, IrFile) and not (self._key.low_bit_weights and is_large):
            return ExportForm.WEIGHTLESS
        return ExportForm.MAPPED if is_large else ExportForm.WITH_WEIGHTS

    @property
    def cache_mode(self) -> dict[str, str]:
        """The setting to compile with for an export in this form."""
        return {"CACHE_MODE": _CACHE_MODES[self.form]}

    def blob_key(self, shapes: Shapes, settings: Mapping[str, Any]) -> str | None:
        """The key under which a compiled model is kept; None where nothing is kept.

        It includes the files' times as well as the hash of their contents, because weights are read
        from them. The group size of dynamic quantization is not: it is set again when an
        export is read.
        """
        if not self._cache.is_enabled():
            return None
        try:
            files = [file.stat() for file in self._source.files]
        except OSError:
            return None  # compiling will explain it
        times = [(file.st_size, file.st_mtime_ns) for file in files]
        lasting = {name: value for name, value in settings.items() if name != GROUP_PROPERTY}
        parts = [self._key.contents, times, sorted(shapes.items()), sorted(lasting.items()), machine().fingerprint]
        return tuning.sha256_of_json(*parts, *([] if self.form is ExportForm.WEIGHTLESS else [self.form.value]))

    def load(self, blob_key: str, core: ov.Core, device: str, settings: Mapping[str, Any]) -> LoadedExport | None:
        """The compiled model kept under ``blob_key``; None where OpenVINO can read none."""
        is_mapped, settings = self.form is ExportForm.MAPPED, dict(settings)
        kept = self._cache.map_with_weights(blob_key) if is_mapped else self._cache.get(blob_key)
        if kept is None:
            return None
        if self.form is ExportForm.WEIGHTLESS:
            settings |= {"ENABLE_WEIGHTLESS": True, "WEIGHTS_PATH": str(self._source.files[-1])}
        blob = self._cache.file_with_weights(blob_key)
        try:
            content = kept if isinstance(kept, bytes) else ov.Tensor(kept, shared_memory=True)
            with self._releasing_weights(kept):
                model = core.import_model(content, device, settings)
        except RuntimeError as error:
            self._cache.discard(blob.stem if is_mapped else blob_key, str(error).strip().splitlines()[-1])
            return None
        release_pages(*([blob] if is_mapped else self._source.files))
        return LoadedExport(model, None if isinstance(kept, bytes) else kept)

    def _releasing_weights(self, kept: bytes | NDArray[np.uint8]) -> AbstractContextManager[None]:
        """Release the mapped weights of a large component, again and again, while it is imported.

        Without weights in ``kept``, OpenVINO maps the component's files anew, and keeps them mapped.
        """
        if not isinstance(kept, bytes):
            return releasing(file_ranges([(kept.ctypes.data, kept.nbytes)]))
        if self._source.size < MOST_HELD:
            return nullcontext()
        before = mapped_ranges(*self._source.files)
        return releasing(lambda: mapped_ranges(*self._source.files) - before)

    def save(self, blob_key: str, model: ov.CompiledModel, shapes: Shapes, seconds: float) -> PendingExport | None:
        """Keep a model that took ``seconds`` to compile.

        One that has gigabytes isn't written at once: what is returned is for
        :meth:`save_with_weights`.
        """
        if self.form is not ExportForm.MAPPED:
            self._save_small(blob_key, model, shapes)
        elif seconds >= _WORTHWHILE_SECONDS and self._cache.has_room_with_weights(round(_GROWTH * self._source.size)):
            return PendingExport(blob_key, dict(shapes), seconds)
        return None

    def _save_small(self, blob_key: str, model: ov.CompiledModel, shapes: Shapes) -> None:
        try:
            content = model.export_model().getvalue()
        except RuntimeError as error:
            self._warn(error)
            return
        if len(content) <= max(_ALWAYS_KEPT, self._source.size // _LARGEST_SHARE):
            self._cache.put(blob_key, content, self._key.description(shapes))

    def save_with_weights(self, pending: PendingExport, model: ov.CompiledModel) -> None:
        """Write what :meth:`save` left to be written, which takes seconds."""
        try:
            description = self._key.description(pending.shapes)
            self._cache.put_with_weights(pending.blob_key, model.export_model, description)
        except (RuntimeError, MemoryError) as error:
            self._warn(error)

    def _warn(self, error: BaseException) -> None:
        reason = str(error).strip().splitlines()[-1]
        self._cache.add_warning(f"{self._source.name} can't be kept compiled: {reason}")
