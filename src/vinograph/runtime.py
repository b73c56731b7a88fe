"""The OpenVINO runtime: the only place that imports it when drawing."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from vinograph.errors import (
    DamagedModelError,
    DeviceError,
    NumericalError,
    RequestError,
    ResourceError,
    VinographError,
)

Array = NDArray[np.float32]

PRECISIONS = ("auto", "f32", "bf16", "f16")
MEMORY = ("auto", "low")
_COMPILED_KEPT = 2
_META_DEVICES = ("AUTO", "HETERO", "MULTI", "BATCH")


@dataclass(frozen=True)
class Device:
    """One device that OpenVINO finds here: its id ("CPU", "GPU.0"), its name, and the precisions that it computes."""

    id: str
    name: str
    precisions: tuple[str, ...]


def core() -> ov.Core:
    """A fresh OpenVINO core; properties set on it concern no other user in the process."""
    return ov.Core()


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
        raise DeviceError(f"device is {device!r}; give a device as OpenVINO names it, such as CPU")
    head, _, rest = device.partition(":")
    wanted = [each for each in rest.split(",") if each] if head in _META_DEVICES else [device]
    if head in ("HETERO", "MULTI", "BATCH") and not wanted:
        raise DeviceError(f"device is {device!r}; name the devices too, such as {head}:GPU,CPU")
    there = core().available_devices
    for each in wanted:
        base = each.lstrip("-").split("(")[0]
        if not any(base in (found, found.split(".")[0]) for found in there):
            raise DeviceError(f"device {each!r} is not on this machine; there is {', '.join(there)}")


def check_precision(precision: str) -> None:
    """Check the name of a precision.

    Raises:
        RequestError: naming those that there are.
    """
    if precision not in PRECISIONS:
        raise RequestError(f"precision is {precision!r}; give one of {', '.join(PRECISIONS)}")


def check_memory(memory: str) -> None:
    """Check the name of a way to use memory.

    Raises:
        RequestError: naming those that there are.
    """
    if memory not in MEMORY:
        raise RequestError(f"memory is {memory!r}; give one of {', '.join(MEMORY)}")


def cpu_count() -> int:
    """Processors that this process may use: its affinity, and the quota of its control group if there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, math.ceil(int(quota) / int(period))))


class Session:
    """One component on one device: a callable from named arrays to named arrays.

    The graph is compiled for the shapes of the inputs at hand, which is faster than for any shape; the few
    compiled last are kept.
    """

    def __init__(self, name: str, xml: Path, device: str, precision: str, f16_safe: bool) -> None:
        """Nothing is read before the first call."""
        self.name = name
        self._xml = xml
        self._device = device
        self._precision = precision
        self._f16_safe = f16_safe
        self._core = core()
        self._compiled: OrderedDict[tuple[Any, ...], ov.CompiledModel] = OrderedDict()
        self._compiling = threading.Lock()
        self.execution_devices: tuple[str, ...] = ()
        self.precision = precision

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        """Compute every output, float32.

        Raises:
            NumericalError: an output holds NaN or infinity.
            DamagedModelError: OpenVINO can't read the component.
            ResourceError: there is not enough memory.
        """
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        with self._compiling:
            compiled = self._compile(shapes)
        request = compiled.create_infer_request()
        contiguous = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        try:
            results = request.infer(contiguous, share_inputs=True, share_outputs=False)
        except (RuntimeError, MemoryError) as error:
            raise self._explain(error, "run") from error
        outputs = {port.get_any_name(): np.asarray(value, np.float32) for port, value in results.items()}
        if not all(np.isfinite(value).all() for value in outputs.values()):
            raise NumericalError(self.name, self.precision, self._hint())
        return outputs

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Begin to compile for inputs of these shapes, beside what the caller does next. A call waits for it.

        What fails here is not told: the call, which compiles again, does so.
        """

        def work() -> None:
            with contextlib.suppress(VinographError), self._compiling:
                self._compile(dict(shapes))

        if tuple(sorted(shapes.items())) not in self._compiled:
            threading.Thread(target=work, name=f"compile {self.name}").start()

    def free(self) -> None:
        """Give back the memory of what is compiled; the next call compiles anew."""
        with self._compiling:
            self._compiled.clear()

    def _compile(self, shapes: dict[str, tuple[int, ...]]) -> ov.CompiledModel:
        key = tuple(sorted(shapes.items()))
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        while len(self._compiled) >= _COMPILED_KEPT:
            self._compiled.popitem(last=False)
        try:
            # A graph is read anew for each set of shapes: reshaping back and forth would leave constants behind.
            model = self._core.read_model(self._xml)
            model.reshape({name: list(shape) for name, shape in shapes.items()})
            compiled = self._core.compile_model(model, self._device, self._settings())
        except (RuntimeError, MemoryError) as error:
            raise self._explain(error, "compile") from error
        self._note_what_runs(compiled)
        self._compiled[key] = compiled
        return compiled

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = cpu_count()
            settings["NUM_STREAMS"] = 1
        precision = self._precision
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
            names = {"float": "f32", "bfloat16": "bf16", "float16": "f16"}
            told = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
            self.precision = names.get(told, told)

    def _hint(self) -> str:
        if self.precision != "f32":
            return "try precision f32"
        return "the weights may be damaged: run `vinograph verify` on the bundle, or convert the model again"

    def _explain(self, error: BaseException, doing: str) -> DamagedModelError | ResourceError | RequestError:
        text = str(error)
        if isinstance(error, MemoryError) or "bad_alloc" in text or "allocate" in text:
            return ResourceError(
                f"there is not enough memory to {doing} {self.name}: {memory_available() / 1e9:.1f} GB are free, and "
                f"its weights alone have {self._xml.with_suffix('.bin').stat().st_size / 1e9:.1f} GB; "
                "close other programs, or draw a smaller picture"
            )
        if "INFERENCE_PRECISION_HINT" in text or "Unsupported" in text:
            return RequestError(f"{self._device} can't {doing} {self.name} in {self._precision}: {text.strip()}")
        return DamagedModelError(f"OpenVINO can't {doing} {self._xml}: {text.strip()}")


def memory_available() -> int:
    """Bytes of memory that could be had without swapping; 0 where the system doesn't say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)
