"""The devices that OpenVINO finds, their precisions, and the checks of their names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from vinograph.errors import DeviceError, RequestError, ResourceError
from vinograph.resources import cpu_count, memory_available, memory_left, memory_limit, shortage
from vinograph.runtime.tuning import Machine
from vinograph.values import shown

PRECISIONS = ("auto", "f32", "bf16", "f16")
MEMORY = ("auto", "low")
GROUP_PROPERTY = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
PRECISION_NAMES = {"float": "f32", "f32": "f32", "bfloat16": "bf16", "bf16": "bf16", "float16": "f16", "f16": "f16"}
META_DEVICES = ("AUTO", "HETERO", "MULTI", "BATCH")
# Bytes that OpenVINO's threads take when they start. Where there aren't as many, they wait for
# ever.
_TO_START = 200_000_000
_PROCESSORS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Device:
    """A device of this machine: its id ("CPU", "GPU.0"), its name, its precisions."""

    id: str
    name: str
    precisions: tuple[str, ...]


@once
def core() -> ov.Core:
    """The one OpenVINO core of this process.

    It is never deleted, and has no properties set: those are given when a model is compiled. Each
    core installs a stack of its own for signal handlers, and restores the one before when it is
    deleted. Several cores that are deleted in another order would leave a stack that is gone, so
    that the next Ctrl-C ends the process (SIGSEGV).

    Raises:
        ResourceError: this process may not have the memory that OpenVINO takes to start.
    """
    _start()
    return ov.Core()


@once
def _start() -> None:
    """Let the libraries allocate what they need to start, while a shortage can still be reported.

    NumPy's BLAS ends the process if it finds no room for its buffer at its first product.
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
    """Our names of the precisions among OpenVINO's capabilities."""
    names = {"FP32": "f32", "BF16": "bf16", "FP16": "f16", "INT8": "int8"}
    return tuple(names[each] for each in ("FP32", "BF16", "FP16", "INT8") if each in capabilities)


def check_device(device: str) -> None:
    """Check that every device in ``device``, a device string of OpenVINO's, is there.

    Raises:
        DeviceError: naming the devices that are there.
        ResourceError: OpenVINO lacks the memory to load its library for the CPU.
    """
    if not isinstance(device, str) or not device.strip():
        raise DeviceError(f"device is {shown(device)}; give a device as OpenVINO names it, such as CPU")
    head, _, rest = device.partition(":")
    wanted = [each for each in rest.split(",") if each] if head in META_DEVICES else [device]
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
    """Raise a ResourceError if OpenVINO lists no CPU because it lacks the memory to load it."""
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


def processor_flags() -> list[str]:
    """The processor's features as Linux lists them, such as "avx2"; empty on other systems."""
    try:
        lines = _PROCESSORS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    return next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])


@once
def machine() -> Machine:
    """The machine that compiled components and measured settings depend on."""
    found = core()
    capabilities = sorted(map(str, found.get_property("CPU", "OPTIMIZATION_CAPABILITIES")))
    precision = str(found.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string())
    return Machine(
        (processor(), *capabilities, str(cpu_count()), str(ov.__version__)),
        PRECISION_NAMES.get(precision, precision),
        int(found.get_property("CPU", GROUP_PROPERTY)),
    )
