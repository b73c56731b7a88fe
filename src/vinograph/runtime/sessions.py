"""Sessions: one component on one device, a callable from named arrays to named arrays."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from vinograph.errors import DamagedModelError, NumericalError, RequestError, ResourceError, VinographError
from vinograph.resources import Shortage, cpu_count, memory_installed, memory_left, processors_are_shared, shortage
from vinograph.runtime import tuning
from vinograph.runtime.automatic import f32_is_faster
from vinograph.runtime.devices import GROUP_PROPERTY, META_DEVICES, PRECISION_NAMES, core, machine
from vinograph.runtime.exports import CompiledExports, PendingExport
from vinograph.runtime.mappings import file_ranges
from vinograph.runtime.pages import MOST_HELD, Range, release_pages, releasing
from vinograph.runtime.sections import OrderedGraph, Section, ValueKey, chain_cuts, cut_out, value_key
from vinograph.runtime.sources import GraphSource
from vinograph.runtime.tuning import (
    DEFAULT,
    CacheKey,
    KnownSetting,
    Measuring,
    Setting,
    Shapes,
    Tuner,
    TuningResult,
    shapes_key,
)

Array = NDArray[np.float32]

_MOST_COMPILED = 2  # shapes or settings whose compiled models are held at once
# A graph with more bytes of weights is compiled in sections of about so many, cut where few values
# pass. Those are chains, such as text encoders. Denoisers take conditions in every block, so they
# are cut nowhere but at their ends.
_SECTION_SIZE = 1_500_000_000
_MOST_PASSING = 2
# "auto" stands for f32 only if the weights take at most this part of the memory, in bytes of the
# file. If they are stored in 16 bits, they take twice as much in f32.
_SHARE_IN_F32 = 8


@dataclass
class _CompiledPart:
    """A compiled component, or a section of one; ``section`` is None for a whole component.

    ``buffer`` is what the model refers to without owning it. ``pages`` are those of its weights'
    files, which it keeps mapped. ``pending`` is its export, while that isn't written.
    """

    model: ov.CompiledModel
    section: Section | None = None
    buffer: Any = None
    pages: Sequence[Range] = ()
    pending: PendingExport | None = None


class Session:
    """One component on one device: a callable from named arrays to named arrays.

    The graph is compiled for the shapes of the inputs at hand, which is faster than for any shape.
    The few compiled last are held. While a graph is compiled, its weights are read from a mapped
    file and copied as the device wants them. On Linux, the file's pages are released meanwhile.
    Elsewhere all weights are in memory twice, so a large graph is compiled and run in sections, if
    it can be cut.

    With a ``cache_key``, what is compiled for the CPU is kept for the next process: at once, or
    when :meth:`save_pending` is called if it has gigabytes. And low-bit weights are computed in the
    setting that was measured to be the fastest, or else in OpenVINO's own. Unless ``measuring``
    says so, nothing is measured. A drawing keeps to one setting.
    """

    def __init__(
        self,
        source: GraphSource,
        device: str,
        precision: str,
        cache_key: CacheKey | None = None,
        measuring: Measuring = Measuring.NEVER,
    ) -> None:
        """Nothing is read before the first call."""
        self.name = source.name
        self._source = source
        self._device = device
        self._precision = precision
        self._core = core()
        self._compiled: OrderedDict[tuple[Any, ...], list[_CompiledPart]] = OrderedDict()
        self._compiling = threading.Lock()
        self.execution_devices: tuple[str, ...] = ()
        self.precision = precision
        self.setting = DEFAULT
        self._exports: CompiledExports | None = None
        self._tuner: Tuner | None = None
        if cache_key is not None and device == "CPU":
            self._exports = CompiledExports(source, cache_key)
            self._tuner = Tuner(cache_key, precision, machine(), measuring) if cache_key.low_bit_weights else None
        self._input_keys: dict[str, ValueKey] = {}

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        """All outputs by name, in float32, for ``inputs`` in the shapes of the component's ports.

        Raises:
            NumericalError: an output holds NaN or infinity.
            DamagedModelError: OpenVINO can't read the component.
            ResourceError: there is not enough memory.
        """
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        with self._compiling:
            if self._tuner:
                self._tuner.choose_setting(shapes, lambda: self.find_fastest_setting(inputs))
            sections = self._compiled_for(shapes)
        results = self._run(sections, inputs)
        outputs = {port.get_any_name(): np.asarray(value, np.float32) for port, value in results.items()}
        if not all(np.isfinite(value).all() for value in outputs.values()):
            raise NumericalError(self.name, self.precision, self._nan_remedy())
        return outputs

    def _run(self, parts: list[_CompiledPart], inputs: Mapping[str, NDArray[Any]]) -> Any:
        given = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        try:
            if parts[0].section is None:
                return parts[0].model.create_infer_request().infer(given, share_inputs=True, share_outputs=False)
            return self._run_sections(parts, {self._input_keys[name]: value for name, value in given.items()})
        except (RuntimeError, MemoryError) as error:
            raise self._explain(error, "run") from error

    def _run_sections(self, parts: list[_CompiledPart], passing: dict[ValueKey, NDArray[Any]]) -> Any:
        for place, part in enumerate(parts):
            assert part.section is not None
            given = {index: passing[key] for index, key in enumerate(part.section.inputs)}
            results = part.model.create_infer_request().infer(given, share_inputs=True, share_outputs=False)
            passing |= dict(zip(part.section.outputs, results.values(), strict=False))
            needed = {key for later in parts[place + 1 :] if later.section for key in later.section.inputs}
            passing = {key: value for key, value in passing.items() if key in needed}
        return results

    def begin_drawing(self) -> None:
        """Let settings be looked up anew; the drawing that begins keeps to them."""
        if self._tuner:
            with self._compiling:
                self._tuner.begin_drawing()

    @property
    def settings_used(self) -> tuple[KnownSetting, ...]:
        """The settings of the last drawing; more than one if sizes differed much.

        There are none if the component has no low-bit weights, or doesn't run on the CPU.
        """
        return self._tuner.used if self._tuner else ()

    def find_fastest_setting(self, inputs: Mapping[str, NDArray[Any]]) -> TuningResult:
        """The fastest setting for ``inputs``, found by :func:`vinograph.runtime.tuning.find_fastest_setting`.

        One setting at a time is compiled, since two may not fit the memory.
        """

        def timed(setting: Setting, best: float) -> float | None:
            try:
                return self.time_call(inputs, setting, best)
            except VinographError:
                if setting == DEFAULT:
                    raise
                return None  # this processor, or this version of OpenVINO, doesn't know it

        used = self._automatic_precision()
        used = machine().precision if used == "auto" else used
        precisions = tuple(each for each in machine().precisions_to_try(self._precision) if each != used)
        return tuning.find_fastest_setting(timed, machine().group_sizes_to_try, precisions)

    def time_call(
        self, inputs: Mapping[str, NDArray[Any]], setting: Setting = DEFAULT, best: float = math.inf
    ) -> float | None:
        """Seconds of a call in a setting: the least of several.

        The first is the only one if it is clearly slower than ``best``. None where the setting
        computes NaN or infinity. Whatever else was compiled is released first.
        """
        self._compiled.clear()
        compiled = self._load_or_compile({name: tuple(value.shape) for name, value in inputs.items()}, setting)
        if not all(np.isfinite(value).all() for value in self._run(compiled, inputs).values()):
            return None
        return tuning.least_seconds(lambda: self._run(compiled, inputs), best)

    def prepare(self, shapes: Shapes) -> None:
        """Begin to compile for inputs of these shapes, on a thread of its own. A call waits for it.

        Errors are not raised here: the call, which compiles again, raises them.
        """

        def work() -> None:
            with contextlib.suppress(VinographError), self._compiling:
                self._compiled_for(dict(shapes))

        if (shapes_key(shapes), self._setting_for(shapes)) not in self._compiled:
            with contextlib.suppress(RuntimeError):  # no more threads: the call compiles
                threading.Thread(target=work, name=f"compile {self.name}").start()

    def release(self) -> None:
        """Free the memory of what is compiled; the next call compiles anew."""
        with self._compiling:
            self._compiled.clear()

    def _compiled_for(self, shapes: Shapes) -> list[_CompiledPart]:
        setting = self._setting_for(shapes)
        key = (shapes_key(shapes), setting)
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        while len(self._compiled) >= _MOST_COMPILED:
            self._compiled.popitem(last=False)
        compiled = self._load_or_compile(shapes, setting)
        self._record_execution(compiled[0].model)
        self.setting = setting
        self._compiled[key] = compiled
        return compiled

    def _setting_for(self, shapes: Shapes) -> Setting:
        return self._tuner.setting(shapes) if self._tuner else DEFAULT

    def _load_or_compile(self, shapes: Shapes, setting: Setting) -> list[_CompiledPart]:
        """The component in one piece, compiled or read from the cache, or compiled in sections."""
        settings = self._settings(setting)
        blob_key = self._exports.blob_key(shapes, settings) if self._exports else None
        if self._exports and blob_key:
            loaded = self._exports.load(blob_key, self._core, self._device, settings)
            if loaded is not None:
                return [_CompiledPart(loaded.model, buffer=loaded.buffer)]
        begin = time.perf_counter()
        try:
            sections = self._sections(shapes)
            is_whole = len(sections) == 1  # OpenVINO exports a whole component alone
            if self._exports and blob_key and is_whole:
                settings |= self._exports.cache_mode
            compiled = [self._compile_section(shapes, section, settings) for section in sections]
        except (RuntimeError, MemoryError, OSError) as error:
            raise self._explain(error, "compile") from error
        if self._exports and blob_key and is_whole:
            seconds = time.perf_counter() - begin
            compiled[0].pending = self._exports.save(blob_key, compiled[0].model, shapes, seconds)
        return compiled

    @property
    def unsaved_compile_seconds(self) -> float:
        """Seconds of compiling that :meth:`save_pending` would save; 0 if nothing is pending."""
        parts = [part for parts in list(self._compiled.values()) for part in parts]
        return max((part.pending.seconds for part in parts if part.pending is not None), default=0.0)

    def save_pending(self) -> None:
        """Write compiled models of gigabytes for the next process, which takes seconds.

        The component can be called meanwhile.
        """
        if self._exports is None:
            return
        with self._compiling:
            parts = [part for parts in self._compiled.values() for part in parts]
            pending = [(part.pending, part) for part in parts if part.pending is not None]
            for part in parts:
                part.pending = None
        for export, part in pending:
            with releasing(part.pages):
                self._exports.save_with_weights(export, part.model)

    def _sections(self, shapes: Shapes) -> list[Section | None]:
        """The sections to compile one after another; None alone stands for the whole graph."""
        if self._source.size <= _SECTION_SIZE:
            return [None]
        model = self._read(shapes)
        ordered = OrderedGraph(model)
        cuts = chain_cuts(ordered, _SECTION_SIZE, _MOST_PASSING)
        self._input_keys = {port.get_any_name(): value_key(port) for port in model.inputs}
        return [*ordered.sections(cuts)] if cuts else [None]

    def _compile_section(self, shapes: Shapes, section: Section | None, settings: Mapping[str, Any]) -> _CompiledPart:
        model = self._read(shapes)
        part = model if section is None else cut_out(model, section)
        pages = self._mapped_pages(part)
        with releasing(pages):
            compiled = self._core.compile_model(part, self._device, settings)
        del model, part
        release_pages(*self._source.files)
        return _CompiledPart(compiled, section, pages=pages)

    def _mapped_pages(self, model: ov.Model) -> list[Range]:
        """The pages of files that hold the weights of a model; none if they are too few to matter."""
        if self._source.size < MOST_HELD:
            return []
        constants = (node for node in model.get_ops() if node.get_type_name() == "Constant")
        return file_ranges((node.get_tensor_view().data.ctypes.data, node.get_byte_size()) for node in constants)

    def _read(self, shapes: Shapes) -> ov.Model:
        """The graph at these shapes.

        It is read anew each time: reshaping it back and forth would leave constants behind, and
        cutting changes it.
        """
        model = self._source.read()
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        return model

    def _settings(self, setting: Setting) -> dict[str, Any]:
        """OpenVINO's settings to compile with."""
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = cpu_count()
            settings["NUM_STREAMS"] = 1
            if processors_are_shared():
                settings["ENABLE_CPU_PINNING"] = False
        if setting.group is not None:
            settings[GROUP_PROPERTY] = setting.group
        precision = setting.precision or self._precision
        if precision == "auto":
            precision = self._automatic_precision()
        if precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = precision
        return settings

    def _automatic_precision(self) -> str:
        """The precision that "auto" stands for; "auto" itself where the device chooses.

        A CPU that is faster in f32 computes in it, unless the weights then take much memory.
        """
        if not self._source.f16_safe and self._computes_f16():
            return "f32"
        most = memory_installed() / _SHARE_IN_F32 or math.inf
        if self._device != "CPU" or self._source.size > most:
            return "auto"
        try:
            return "f32" if f32_is_faster() else "auto"
        except (RuntimeError, MemoryError, OSError) as error:
            raise self._explain(error, "compile") from error

    def _computes_f16(self) -> bool:
        """Whether the device computes in f16 by itself. Devices behind AUTO and HETERO may."""
        if self._device.split(":")[0] in META_DEVICES:
            return any(each.split(".")[0] != "CPU" for each in self._core.available_devices)
        return str(self._core.get_property(self._device, "INFERENCE_PRECISION_HINT").to_string()) == "f16"

    def _record_execution(self, compiled: ov.CompiledModel) -> None:
        """Record which devices really run the component, and in which precision."""
        self.execution_devices = tuple(str(each) for each in compiled.get_property("EXECUTION_DEVICES"))
        if self._device.split(":")[0] not in META_DEVICES:
            precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
            self.precision = PRECISION_NAMES.get(precision, precision)

    def _nan_remedy(self) -> str:
        """What to do about NaN: sound weights don't compute it in f32."""
        if self.precision != "f32":
            return "try precision f32"
        return self._source.remedy

    def _explain(self, error: BaseException, doing: str) -> DamagedModelError | ResourceError | RequestError:
        """The error of ours that says what OpenVINO's means."""
        text = str(error)
        if (short := shortage(error)) is not None:
            what = "memory or threads" if short is Shortage.THREADS else short.value
            return ResourceError(
                f"there is not enough {what} to {doing} {self.name}: {memory_left()}, and its weights alone have "
                f"{self._source.size / 1e9:.2f} GB; close other programs, or draw a smaller picture"
            )
        if "INFERENCE_PRECISION_HINT" in text or "Unsupported" in text:
            return RequestError(f"{self._device} can't {doing} {self.name} in {self._precision}: {text.strip()}")
        return DamagedModelError(f"OpenVINO can't {doing} {self._source.files[0]}: {text.strip()}")
