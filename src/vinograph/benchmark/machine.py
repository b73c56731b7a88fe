"""A description of the machine that was measured on."""

from __future__ import annotations

import os
import platform
from typing import Any

from vinograph.resources import cpu_count, memory_available, memory_installed
from vinograph.runtime.devices import devices, processor


def describe() -> dict[str, Any]:
    """The machine's processor, cores, memory in bytes, system, load, and OpenVINO devices."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "processor": processor(),
        "cores": cpu_count(),
        "memory": memory_installed(),
        "memory_available": memory_available(),
        "system": platform.platform(),
        "load_average": load,
        "devices": {each.id: each.name for each in devices()},
    }
