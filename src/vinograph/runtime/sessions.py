"""Compiled components: callables from named arrays to named arrays."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from vinograph.errors import DamagedModelError, NumericalError, RequestError, ResourceError, VinographError
from vinograph.resources import Shortage, cpu_count, memory_left, shortage
from vinograph.runtime import tuning
from vinograph.runtime.devices import GROUP_PROPERTY, META_DEVICES, PRECISION_NAMES, core, machine
from vinograph.runtime.sections import OrderedGraph, Section, ValueKey, chain_cuts, cut_out, release_pages, value_key
from vinograph.runtime.sources import GraphSource, IrFile
from vinograph.runtime.tuning import DEFAULT, CacheKey, Setting, Tuner, TuningResult

Array = NDArray[np.float32]

_COMPILED_KEPT = 2
# A graph with weights of more bytes than that is compiled in sections of about so many, where few values pass between:
# chains such as text encoders. Denoisers take conditions in every block, and are cut nowhere but at their ends.
_SECTION = 1_500_000_000
_MOST_PASSING = 2
# What is exported without its weights has a tenth of their size or less. OpenVINO keeps some weights in it all the
# same, such as those of convolutions in few bits, which it has unpacked by then: to read these costs what it saves.
_SHARE_KEPT = 4
_ALWAYS_KEPT = 32_000_000
# Seconds of compiling that are worth keeping gigabytes for.
_LONG = 2.0
# What is exported with its weights has up to so much of their size: those of convolutions in int8 lie unpacked in it.
_GROWS = 1.25


class Form(Enum):
    """How a component is kept: without its weights, with them, or with them and so large that it is mapped."""

    WEIGHTLESS = "weightless"
    WITH_WEIGHTS = "with weights"
    MAPPED = "mapped"


_MODES = {
    Form.WEIGHTLESS: "OPTIMIZE_SIZE",
    Form.WITH_WEIGHTS: "OPTIMIZE_SPEED",
    Form.MAPPED: "OPTIMIZE_SPEED",
}


@dataclass(frozen=True)
class _Unkept:
    """What is still to be written for the next process, and the seconds that it took to compile."""

    key: str
    shapes: Mapping[str, tuple[int, ...]]
    seconds: float


@dataclass
class _Compiled:
    """A component, or a section of one, and the keys of what it takes and gives; None of a whole component.

    ``held`` is what it refers to without owning it.
    """

    model: ov.CompiledModel
    section: Section | None = None
    held: Any = None
    unkept: _Unkept | None = None


class Session:
    """One component on one device: a callable from named arrays to named arrays.

    The graph is compiled for the shapes of the inputs at hand, which is faster than for any shape; the few
    compiled last are kept. While a graph is compiled, its weights are in memory twice: mapped from the file, and as the
    device wants them. So a large one is compiled and run in sections, if it can be cut.

    With a ``cache_key``, what is compiled for the CPU is kept for the next process, at once or, where it has gigabytes,
    when :meth:`keep` is called. And where weights are stored in few
    bits, the fastest setting is measured, once: at the first call of a drawing, when calls of these shapes have taken
    as much time, in this and earlier processes, as measuring does. A drawing keeps to one setting.
    """

    def __init__(self, source: GraphSource, device: str, precision: str, cache_key: CacheKey | None = None) -> None:
        """Nothing is read before the first call."""
        self.name = source.name
        self._source = source
        self._device = device
        self._precision = precision
        self._core = core()
        self._compiled: OrderedDict[tuple[Any, ...], list[_Compiled]] = OrderedDict()
        self._compiling = threading.Lock()
        self.execution_devices: tuple[str, ...] = ()
        self.precision = precision
        self.setting = DEFAULT
        self._cache_key = cache_key if device == "CPU" else None
        tuned = self._cache_key is not None and self._cache_key.low_bit_weights
        self._tuner = Tuner(self._cache_key, precision, machine()) if self._cache_key and tuned else None
        self._compiling_took = 0.0
        self._input_keys: dict[str, ValueKey] = {}

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        """Compute every output, float32.

        Raises:
            NumericalError: an output holds NaN or infinity.
            DamagedModelError: OpenVINO can't read the component.
            ResourceError: there is not enough memory.
        """
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        with self._compiling:
            if self._tuner:
                self._tuner.settle(shapes, lambda: self.measure(inputs))
            sections = self._compile(shapes)
        begin = time.perf_counter()
        results = self._run(sections, inputs)
        if self._tuner:
            self._tuner.note_time(shapes, time.perf_counter() - begin, self._compiling_took)
        outputs = {port.get_any_name(): np.asarray(value, np.float32) for port, value in results.items()}
        if not all(np.isfinite(value).all() for value in outputs.values()):
            raise NumericalError(self.name, self.precision, self._hint())
        return outputs

    def _run(self, parts: list[_Compiled], inputs: Mapping[str, NDArray[Any]]) -> Any:
        given = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        try:
            if parts[0].section is None:
                return parts[0].model.create_infer_request().infer(given, share_inputs=True, share_outputs=False)
            return self._run_sections(parts, {self._input_keys[name]: value for name, value in given.items()})
        except (RuntimeError, MemoryError) as error:
            raise self._explain(error, "run") from error

    def _run_sections(self, parts: list[_Compiled], passing: dict[ValueKey, NDArray[Any]]) -> Any:
        for place, part in enumerate(parts):
            assert part.section is not None
            given = {index: passing[key] for index, key in enumerate(part.section.inputs)}
            results = part.model.create_infer_request().infer(given, share_inputs=True, share_outputs=False)
            passing |= dict(zip(part.section.outputs, results.values(), strict=False))
            needed = {key for later in parts[place + 1 :] if later.section for key in later.section.inputs}
            passing = {key: value for key, value in passing.items() if key in needed}
        return results

    def begin_drawing(self) -> None:
        """Let the fastest settings be looked up or measured anew, to which this drawing then keeps."""
        if self._tuner:
            with self._compiling:
                self._tuner.begin_drawing()

    def end_drawing(self) -> None:
        """Record what is to be remembered of the drawing."""
        if self._tuner:
            with self._compiling:
                self._tuner.end_drawing()

    def measure(self, inputs: Mapping[str, NDArray[Any]]) -> TuningResult:
        """Run ``inputs`` in each setting, one at a time in memory; see :func:`vinograph.runtime.tuning.fastest`."""

        def timed(setting: Setting, best: float) -> float | None:
            try:
                return self.seconds(inputs, setting, best)
            except VinographError:
                if setting == DEFAULT:
                    raise
                return None  # this processor, or this version of OpenVINO, doesn't know it

        return tuning.fastest(timed, machine().groups, machine().others(self._precision))

    def seconds(
        self, inputs: Mapping[str, NDArray[Any]], setting: Setting = DEFAULT, best: float = math.inf
    ) -> float | None:
        """The least seconds of some calls in a setting, or those of one that is clearly slower than ``best``.

        None where it computes NaN or infinity. Whatever else was compiled is freed before.
        """
        self._compiled.clear()
        compiled = self._build({name: tuple(value.shape) for name, value in inputs.items()}, setting)
        if not all(np.isfinite(value).all() for value in self._run(compiled, inputs).values()):
            return None
        return tuning.seconds_of(lambda: self._run(compiled, inputs), best)

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Begin to compile for inputs of these shapes, beside what the caller does next. A call waits for it.

        What fails here is not told: the call, which compiles again, does so.
        """

        def work() -> None:
            with contextlib.suppress(VinographError), self._compiling:
                self._compile(dict(shapes))

        if (_key(shapes), self._setting_for(shapes)) not in self._compiled:
            with contextlib.suppress(RuntimeError):  # no more threads: the call compiles
                threading.Thread(target=work, name=f"compile {self.name}").start()

    def free(self) -> None:
        """Give back the memory of what is compiled; the next call compiles anew."""
        with self._compiling:
            self._compiled.clear()

    def _compile(self, shapes: dict[str, tuple[int, ...]]) -> list[_Compiled]:
        setting = self._setting_for(shapes)
        key = (_key(shapes), setting)
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        while len(self._compiled) >= _COMPILED_KEPT:
            self._compiled.popitem(last=False)
        begin = time.perf_counter()
        compiled = self._build(shapes, setting)
        self._compiling_took = time.perf_counter() - begin
        self._note_what_runs(compiled[0].model)
        self.setting = setting
        self._compiled[key] = compiled
        return compiled

    def _setting_for(self, shapes: Mapping[str, tuple[int, ...]]) -> Setting:
        return self._tuner.setting(shapes) if self._tuner else DEFAULT

    def _build(self, shapes: Mapping[str, tuple[int, ...]], setting: Setting) -> list[_Compiled]:
        """The component compiled, or as it was kept: in one piece, or in sections."""
        settings = self._settings(setting)
        key = self._kept_as(shapes, settings)
        kept = self._import(key, settings) if key else None
        if kept is not None:
            return [kept]
        begin = time.perf_counter()
        try:
            sections = self._sections(shapes)
            if key and len(sections) == 1:
                settings = {**settings, "CACHE_MODE": _MODES[self._form]}
            compiled = [self._compile_section(shapes, section, settings) for section in sections]
        except (RuntimeError, MemoryError, OSError) as error:
            raise self._explain(error, "compile") from error
        if key and len(sections) == 1:
            self._keep_or_plan_to(key, compiled[0], shapes, time.perf_counter() - begin)
        return compiled

    def _keep_or_plan_to(
        self, key: str, compiled: _Compiled, shapes: Mapping[str, tuple[int, ...]], seconds: float
    ) -> None:
        assert self._cache_key is not None
        if self._form is not Form.MAPPED:
            self._keep(key, compiled.model, shapes)
        elif seconds >= _LONG and self._cache_key.cache.has_room_with_weights(round(_GROWS * self._source.size)):
            compiled.unkept = _Unkept(key, dict(shapes), seconds)

    @property
    def unkept(self) -> float:
        """The seconds that it took to compile what :meth:`keep` would write; 0 if there is nothing."""
        parts = [part for parts in list(self._compiled.values()) for part in parts]
        return max((part.unkept.seconds for part in parts if part.unkept is not None), default=0.0)

    def keep(self) -> None:
        """Write for the next process what has gigabytes, which takes seconds. The component can be called meanwhile."""
        if self._cache_key is None:
            return
        with self._compiling:
            parts = [part for parts in self._compiled.values() for part in parts if part.unkept is not None]
        for part in parts:
            unkept, part.unkept = part.unkept, None
            if unkept is None:
                continue
            try:
                description = self._cache_key.description(unkept.shapes)
                self._cache_key.cache.put_with_weights(unkept.key, part.model.export_model, description)
            except (RuntimeError, MemoryError) as error:
                self._cache_key.cache.add_warning(self._cannot_be_kept(error))

    def _sections(self, shapes: Mapping[str, tuple[int, ...]]) -> list[Section | None]:
        """What is compiled one after another; None alone where that is the whole graph."""
        if self._source.size <= _SECTION:
            return [None]
        model = self._read(shapes)
        ordered = OrderedGraph(model)
        cuts = chain_cuts(ordered, _SECTION, _MOST_PASSING)
        self._input_keys = {port.get_any_name(): value_key(port) for port in model.inputs}
        return [*ordered.sections(cuts)] if cuts else [None]

    def _compile_section(
        self, shapes: Mapping[str, tuple[int, ...]], section: Section | None, settings: Mapping[str, Any]
    ) -> _Compiled:
        model = self._read(shapes)
        part = model if section is None else cut_out(model, section)
        compiled = self._core.compile_model(part, self._device, settings)
        del model, part
        for file in self._source.files:
            release_pages(file)
        return _Compiled(compiled, section)

    def _kept_as(self, shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]) -> str | None:
        """What the component is kept by when it is compiled; None where it isn't.

        The files' times are in it beside their contents as the manifest has them, since weights are read from them.
        Groups are not: they are told again when it is read.
        """
        if self._cache_key is None or not self._cache_key.cache.is_enabled():
            return None
        try:
            files = [file.stat() for file in self._source.files]
        except OSError:
            return None  # which compiling explains
        times = [(file.st_size, file.st_mtime_ns) for file in files]
        told = {name: value for name, value in settings.items() if name != GROUP_PROPERTY}
        what = [self._cache_key.contents, times, sorted(shapes.items()), sorted(told.items()), machine().told]
        return tuning.key(*what, *([] if self._form is Form.WEIGHTLESS else [self._form.value]))

    @property
    def _form(self) -> Form:
        """How the component is kept.

        OpenVINO reads weights of what it exported without them from one file of its own, which a checkpoint has not.
        And in few bits those of convolutions lie unpacked in what it exports, in whatever form.
        """
        few = self._cache_key is not None and self._cache_key.low_bit_weights
        large = self._source.size > _ALWAYS_KEPT
        if isinstance(self._source, IrFile) and not (few and large):
            return Form.WEIGHTLESS
        return Form.MAPPED if large else Form.WITH_WEIGHTS

    def _import(self, key: str, settings: Mapping[str, Any]) -> _Compiled | None:
        """What was kept; None where there is nothing that OpenVINO can read."""
        assert self._cache_key is not None
        cache, given = self._cache_key.cache, dict(settings)
        kept = cache.map_with_weights(key) if self._form is Form.MAPPED else cache.get(key)
        if kept is None:
            return None
        if self._form is Form.WEIGHTLESS:
            given |= {"ENABLE_WEIGHTLESS": True, "WEIGHTS_PATH": str(self._source.files[-1])}
        try:
            content = kept if isinstance(kept, bytes) else ov.Tensor(kept, shared_memory=True)
            compiled = self._core.import_model(content, self._device, given)
        except RuntimeError as error:
            stem = cache.file_with_weights(key).stem if self._form is Form.MAPPED else key
            cache.discard(stem, str(error).strip().splitlines()[-1])
            return None
        mapped = [cache.file_with_weights(key)] if self._form is Form.MAPPED else self._source.files
        for file in mapped:
            release_pages(file)
        return _Compiled(compiled, held=None if isinstance(kept, bytes) else kept)

    def _keep(self, key: str, compiled: ov.CompiledModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
        assert self._cache_key is not None
        try:
            content = compiled.export_model().getvalue()
        except RuntimeError as error:
            self._cache_key.cache.add_warning(self._cannot_be_kept(error))
            return
        if len(content) <= max(_ALWAYS_KEPT, self._source.size // _SHARE_KEPT):
            self._cache_key.cache.put(key, content, self._cache_key.description(shapes))

    def _cannot_be_kept(self, error: BaseException) -> str:
        return f"{self.name} can't be kept compiled: {str(error).strip().splitlines()[-1]}"

    def _read(self, shapes: Mapping[str, tuple[int, ...]]) -> ov.Model:
        """The graph, read anew: reshaping one back and forth would leave constants behind, and cutting changes it."""
        model = self._source.read()
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        return model

    def _settings(self, setting: Setting) -> dict[str, Any]:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = cpu_count()
            settings["NUM_STREAMS"] = 1
        if setting.group is not None:
            settings[GROUP_PROPERTY] = setting.group
        precision = setting.precision or self._precision
        if precision == "auto" and not self._source.f16_safe and self._computes_f16():
            precision = "f32"
        if precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = precision
        return settings

    def _computes_f16(self) -> bool:
        """Whether the device would compute in f16 if left to itself. Devices behind AUTO and HETERO may."""
        if self._device.split(":")[0] in META_DEVICES:
            return any(each.split(".")[0] != "CPU" for each in self._core.available_devices)
        return str(self._core.get_property(self._device, "INFERENCE_PRECISION_HINT").to_string()) == "f16"

    def _note_what_runs(self, compiled: ov.CompiledModel) -> None:
        self.execution_devices = tuple(str(each) for each in compiled.get_property("EXECUTION_DEVICES"))
        if self._device.split(":")[0] not in META_DEVICES:
            told = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
            self.precision = PRECISION_NAMES.get(told, told)

    def _hint(self) -> str:
        if self.precision != "f32":
            return "try precision f32"
        return self._source.remedy

    def _explain(self, error: BaseException, doing: str) -> DamagedModelError | ResourceError | RequestError:
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


def _key(shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted(shapes.items()))
