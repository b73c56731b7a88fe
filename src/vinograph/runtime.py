"""The OpenVINO runtime: the only place that imports it when drawing."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph import tuning
from vinograph.arguments import shown
from vinograph.errors import (
    DamagedModelError,
    DeviceError,
    NumericalError,
    RequestError,
    ResourceError,
    VinographError,
)
from vinograph.limits import cpu_count, memory_available, memory_limit
from vinograph.resources import Shortage, memory_left, shortage
from vinograph.tuning import DEFAULT, Choice, Machine, Origin, Setting, Tuner

Array = NDArray[np.float32]

PRECISIONS = ("auto", "f32", "bf16", "f16")
MEMORY = ("auto", "low")
_COMPILED_KEPT = 2
_GROUP = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_PRECISION_NAMES = {"float": "f32", "f32": "f32", "bfloat16": "bf16", "bf16": "bf16", "float16": "f16", "f16": "f16"}
_META_DEVICES = ("AUTO", "HETERO", "MULTI", "BATCH")
# A graph with weights of more bytes than that is compiled in sections of about so many, where few values pass between:
# chains such as text encoders. Denoisers are told too much in every block, and are cut nowhere but at their ends.
_SECTION = 1_500_000_000
_PASSING = 2
_DONT_NEED = 4  # MADV_DONTNEED
# What is exported without its weights has a tenth of their size or less. OpenVINO keeps some weights in it all the
# same, such as those of convolutions in few bits, which it has unpacked by then: to read these costs what it saves.
_SHARE_KEPT = 4
_ALWAYS_KEPT = 32_000_000
# What OpenVINO's threads take when they start. Where there isn't as much, they wait for ever.
_TO_START = 200_000_000


@dataclass(frozen=True)
class Device:
    """One device that OpenVINO finds here: its id ("CPU", "GPU.0"), its name, and the precisions that it computes."""

    id: str
    name: str
    precisions: tuple[str, ...]


def core() -> ov.Core:
    """A fresh OpenVINO core; properties set on it concern no other user in the process.

    Raises:
        ResourceError: this process may not have the memory that OpenVINO takes to start.
    """
    _start()
    return ov.Core()


@once
def _start() -> None:
    """Have the libraries take what they need to start while it can still be refused in an orderly way.

    numpy's BLAS ends the process where it finds no room for its buffer at its first product.
    """
    if memory_limit() is not None and memory_available() < _TO_START:
        raise ResourceError(
            f"there is not enough memory to start OpenVINO, which takes {_TO_START / 1e9:.1f} GB: {memory_left()}; "
            "raise the limit, as by `ulimit -v unlimited`"
        )
    block = np.ones((256, 256), np.float32)
    np.dot(block, block)


def devices() -> list[Device]:
    """The devices that OpenVINO finds on this machine."""
    found = core()
    return [
        Device(
            each,
            str(found.get_property(each, "FULL_DEVICE_NAME")).strip(),
            _precisions(found.get_property(each, "OPTIMIZATION_CAPABILITIES")),
        )
        for each in found.available_devices
    ]


def _precisions(capabilities: Any) -> tuple[str, ...]:
    names = {"FP32": "f32", "BF16": "bf16", "FP16": "f16", "INT8": "int8"}
    return tuple(names[each] for each in ("FP32", "BF16", "FP16", "INT8") if each in capabilities)


def check_device(device: str) -> None:
    """Check that every device that ``device`` names is there.

    Raises:
        DeviceError: naming the devices that are.
    """
    if not isinstance(device, str) or not device.strip():
        raise DeviceError(f"device is {shown(device)}; give a device as OpenVINO names it, such as CPU")
    head, _, rest = device.partition(":")
    wanted = [each for each in rest.split(",") if each] if head in _META_DEVICES else [device]
    if head in ("HETERO", "MULTI", "BATCH") and not wanted:
        raise DeviceError(f"device is {shown(device)}; name the devices too, such as {head}:GPU,CPU")
    there = core().available_devices
    for each in wanted:
        base = each.lstrip("-").split("(")[0]
        if not any(base in (found, found.split(".")[0]) for found in there):
            if base == "CPU":
                _check_cpu()
            raise DeviceError(f"device {shown(each)} is not on this machine; there is {', '.join(there)}")


def _check_cpu() -> None:
    """Raise a ResourceError where OpenVINO lists no CPU because it lacks the memory to load its library for it."""
    try:
        core().get_property("CPU", "FULL_DEVICE_NAME")
    except RuntimeError as error:
        if shortage(error) is not None:
            raise ResourceError(f"there is not enough memory to start OpenVINO: {memory_left()}") from error


def check_precision(precision: str) -> None:
    """Check the name of a precision.

    Raises:
        RequestError: naming those that there are.
    """
    if precision not in PRECISIONS:
        raise RequestError(f"precision is {shown(precision)}; give one of {', '.join(PRECISIONS)}")


def check_memory(memory: str) -> None:
    """Check the name of a way to use memory.

    Raises:
        RequestError: naming those that there are.
    """
    if memory not in MEMORY:
        raise RequestError(f"memory is {shown(memory)}; give one of {', '.join(MEMORY)}")


def processor() -> str:
    """The name of this machine's processor."""
    return str(core().get_property("CPU", "FULL_DEVICE_NAME")).strip()


@once
def machine() -> Machine:
    """What compiled components and measured settings depend on beside the component."""
    found = core()
    capabilities = sorted(map(str, found.get_property("CPU", "OPTIMIZATION_CAPABILITIES")))
    told = str(found.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string())
    return Machine(
        (processor(), *capabilities, str(cpu_count()), str(ov.__version__)),
        _PRECISION_NAMES.get(told, told),
        int(found.get_property("CPU", _GROUP)),
    )


def measure(xml: Path, inputs: Mapping[str, NDArray[Any]], f16_safe: bool, precision: str = "auto") -> Choice:
    """Which setting is the fastest for a component on the CPU, by running it with ``inputs`` in each.

    :func:`vinograph.tuning.remember` has drawings use it. Each is compiled anew, and one at a time is in memory.

    Raises:
        DamagedModelError, ResourceError: as when it is called.
    """
    return Session(xml.stem, xml, "CPU", precision, f16_safe).measure(inputs)


class Session:
    """One component on one device: a callable from named arrays to named arrays.

    The graph is compiled for the shapes of the inputs at hand, which is faster than for any shape; the few
    compiled last are kept. While a graph is compiled, its weights are in memory twice: mapped from the file, and as the
    device wants them. So a large one is compiled and run in sections, if it can be cut.

    With an ``origin``, what is compiled for the CPU is kept for the next process. And where weights are stored in few
    bits, the fastest setting is measured, once: at the first call of a drawing, when calls of these shapes have taken
    as much time, in this and earlier processes, as measuring does. A drawing keeps to one setting.
    """

    def __init__(
        self, name: str, xml: Path, device: str, precision: str, f16_safe: bool, origin: Origin | None = None
    ) -> None:
        """Nothing is read before the first call."""
        self.name = name
        self._xml = xml
        self._device = device
        self._precision = precision
        self._f16_safe = f16_safe
        self._core = core()
        self._compiled: OrderedDict[tuple[Any, ...], list[ov.CompiledModel]] = OrderedDict()
        self._compiling = threading.Lock()
        self.execution_devices: tuple[str, ...] = ()
        self.precision = precision
        self.setting = DEFAULT
        self._origin = origin if device == "CPU" else None
        tuned = self._origin is not None and self._origin.few_bits
        self._tuner = Tuner(self._origin, precision, machine()) if self._origin and tuned else None
        self._compiling_took = 0.0

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

    def _run(self, sections: Sequence[ov.CompiledModel], inputs: Mapping[str, NDArray[Any]]) -> Any:
        passing: dict[Any, NDArray[Any]] = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        try:
            for section in sections:
                results = section.create_infer_request().infer(passing, share_inputs=True, share_outputs=False)
                passing = dict(enumerate(results.values()))
        except (RuntimeError, MemoryError) as error:
            raise self._explain(error, "run") from error
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

    def measure(self, inputs: Mapping[str, NDArray[Any]]) -> Choice:
        """Run ``inputs`` in each setting, one at a time in memory; see :func:`measure`."""

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

    def _compile(self, shapes: dict[str, tuple[int, ...]]) -> list[ov.CompiledModel]:
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
        self._note_what_runs(compiled[0])
        self.setting = setting
        self._compiled[key] = compiled
        return compiled

    def _setting_for(self, shapes: Mapping[str, tuple[int, ...]]) -> Setting:
        return self._tuner.setting(shapes) if self._tuner else DEFAULT

    def _build(self, shapes: Mapping[str, tuple[int, ...]], setting: Setting) -> list[ov.CompiledModel]:
        """The component compiled, or as it was kept: in one piece, or in sections."""
        settings = self._settings(setting)
        key = self._kept_as(shapes, settings)
        kept = self._import(key, settings) if key else None
        if kept is not None:
            return [kept]
        try:
            cuts = _cuts(self._read(shapes)) if self._xml.with_suffix(".bin").stat().st_size > _SECTION else []
            if key and not cuts:
                settings = {**settings, "CACHE_MODE": "OPTIMIZE_SIZE"}
            compiled = []
            for begin, end in pairwise([None, *cuts, None]):
                section = _section(self._read(shapes), begin, end)
                compiled.append(self._core.compile_model(section, self._device, settings))
                del section
                give_back(self._xml.with_suffix(".bin"))
        except (RuntimeError, MemoryError, OSError) as error:
            raise self._explain(error, "compile") from error
        if key and not cuts:
            self._keep(key, compiled[0], shapes)
        return compiled

    def _kept_as(self, shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]) -> str | None:
        """What the component is kept by when it is compiled; None where it isn't.

        The files' times are in it beside their contents as the manifest has them, since weights are read from them.
        Groups are not: they are told again when it is read.
        """
        if self._origin is None or not self._origin.cache.wants():
            return None
        if self._origin.few_bits and self._weights_size() > _ALWAYS_KEPT:
            return None
        try:
            files = [self._xml.stat(), self._xml.with_suffix(".bin").stat()]
        except OSError:
            return None  # which compiling explains
        times = [(file.st_size, file.st_mtime_ns) for file in files]
        told = {name: value for name, value in settings.items() if name != _GROUP}
        return tuning.key(self._origin.contents, times, sorted(shapes.items()), sorted(told.items()), machine().told)

    def _weights_size(self) -> int:
        try:
            return self._xml.with_suffix(".bin").stat().st_size
        except OSError:
            return 0  # which compiling explains

    def _import(self, key: str, settings: Mapping[str, Any]) -> ov.CompiledModel | None:
        assert self._origin is not None
        kept = self._origin.cache.get(key)
        if kept is None:
            return None
        weights = {"ENABLE_WEIGHTLESS": True, "WEIGHTS_PATH": str(self._xml.with_suffix(".bin"))}
        try:
            compiled = self._core.import_model(kept, self._device, {**settings, **weights})
        except RuntimeError as error:
            self._origin.cache.drop(key, str(error).strip().splitlines()[-1])
            return None
        give_back(self._xml.with_suffix(".bin"))
        return compiled

    def _keep(self, key: str, compiled: ov.CompiledModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
        assert self._origin is not None
        try:
            content = compiled.export_model().getvalue()
        except RuntimeError as error:
            self._origin.cache.note(f"{self.name} can't be kept compiled: {str(error).strip().splitlines()[-1]}")
            return
        if len(content) <= max(_ALWAYS_KEPT, self._weights_size() // _SHARE_KEPT):
            self._origin.cache.put(key, content, self._origin.about(shapes))

    def _read(self, shapes: Mapping[str, tuple[int, ...]]) -> ov.Model:
        """The graph, read anew: reshaping one back and forth would leave constants behind, and cutting changes it."""
        model = self._core.read_model(self._xml)
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        return model

    def _settings(self, setting: Setting) -> dict[str, Any]:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = cpu_count()
            settings["NUM_STREAMS"] = 1
        if setting.group is not None:
            settings[_GROUP] = setting.group
        precision = setting.precision or self._precision
        if precision == "auto" and not self._f16_safe and self._computes_f16():
            precision = "f32"
        if precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = precision
        return settings

    def _computes_f16(self) -> bool:
        """Whether the device would compute in f16 if left to itself. Devices behind AUTO and HETERO may."""
        if self._device.split(":")[0] in _META_DEVICES:
            return any(each.split(".")[0] != "CPU" for each in self._core.available_devices)
        return str(self._core.get_property(self._device, "INFERENCE_PRECISION_HINT").to_string()) == "f16"

    def _note_what_runs(self, compiled: ov.CompiledModel) -> None:
        self.execution_devices = tuple(str(each) for each in compiled.get_property("EXECUTION_DEVICES"))
        if self._device.split(":")[0] not in _META_DEVICES:
            told = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
            self.precision = _PRECISION_NAMES.get(told, told)

    def _hint(self) -> str:
        if self.precision != "f32":
            return "try precision f32"
        return "the weights may be damaged: run `vinograph verify` on the bundle, or convert the model again"

    def _explain(self, error: BaseException, doing: str) -> DamagedModelError | ResourceError | RequestError:
        text = str(error)
        if (short := shortage(error)) is not None:
            what = "memory or threads" if short is Shortage.THREADS else short.value
            return ResourceError(
                f"there is not enough {what} to {doing} {self.name}: {memory_left()}, and its weights alone have "
                f"{self._weights_size() / 1e9:.2f} GB; close other programs, or draw a smaller picture"
            )
        if "INFERENCE_PRECISION_HINT" in text or "Unsupported" in text:
            return RequestError(f"{self._device} can't {doing} {self.name} in {self._precision}: {text.strip()}")
        return DamagedModelError(f"OpenVINO can't {doing} {self._xml}: {text.strip()}")


def _key(shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted(shapes.items()))


def give_back(file: Path) -> None:
    """Let the system have the memory of what this process maps from ``file``; what is read again is mapped again.

    What is compiled keeps the mapping of its weights, of which it mostly has copies. Only Linux is asked.
    """
    if sys.platform != "linux":
        return
    name, libc = str(file.resolve()), ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        place, access, *rest = line.split(maxsplit=5)
        if rest[-1] == name and "w" not in access:
            begin, end = (int(address, 16) for address in place.split("-"))
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONT_NEED)


def _cuts(model: ov.Model) -> list[int]:
    """After which nodes, in the graph's order, it is cut: where weights fill a section and few values pass.

    A cut that leaves less than half a section after it would cost more than it spares.
    """
    nodes = model.get_ordered_ops()
    uses = _last_uses(nodes)
    ending = Counter(uses.values())
    beginning = Counter(index for index, _ in uses)
    left = sum(_weight(node) for node in nodes)
    cuts, passing, size = [], 0, 0
    for index, node in enumerate(nodes):
        passing += beginning[index] - ending[index]
        weight = _weight(node)
        size, left = size + weight, left - weight
        if weight == 0 and size >= _SECTION and left >= _SECTION // 2 and 0 < passing <= _PASSING:
            cuts.append(index)
            size = 0
    return cuts


def _weight(node: ov.Node) -> int:
    """The bytes of a constant; 0 of what is none."""
    return int(node.get_byte_size()) if node.get_type_name() == "Constant" else 0


def _last_uses(nodes: Sequence[ov.Node]) -> dict[tuple[int, int], int]:
    """The last node that uses each value which isn't constant, by its node and its place among that one's outputs.

    What the graph gives is used after all of them: the last section has to have it.
    """
    places = {node.get_name(): index for index, node in enumerate(nodes)}
    constant: set[int] = set()
    uses: dict[tuple[int, int], int] = {}
    for index, node in enumerate(nodes):
        sources = [(places[value.get_node().get_name()], value.get_index()) for value in node.input_values()]
        if node.get_type_name() != "Parameter" and all(source in constant for source, _ in sources):
            constant.add(index)
        last = len(nodes) if node.get_type_name() == "Result" else index
        uses |= {source: max(last, uses.get(source, 0)) for source in sources if source[0] not in constant}
    return uses


def _section(model: ov.Model, begin: int | None, end: int | None) -> ov.Model:
    """What ``model`` computes after one cut and up to the next; it takes and gives the values that pass there."""
    if begin is None and end is None:
        return model
    nodes = model.get_ordered_ops()
    uses = _last_uses(nodes)

    def passing(cut: int) -> list[ov.Output]:
        values = [value for value, last in sorted(uses.items()) if value[0] <= cut < last]
        return [nodes[index].output(output) for index, output in values]

    results = model.get_results() if end is None else [opset.result(value) for value in passing(end)]
    if begin is None:
        return ov.Model(results, model.get_parameters(), model.get_friendly_name())
    parameters = []
    for value in passing(begin):
        parameter = opset.parameter(value.get_partial_shape(), value.get_element_type())
        parameter.output(0).get_tensor().set_names(value.get_names())
        parameters.append(parameter)
        for user in value.get_target_inputs():
            user.replace_source_output(parameter.output(0))
    return ov.Model(results, parameters, model.get_friendly_name())
