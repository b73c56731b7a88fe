"""The machine that the figures are of."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from vinograph.runtime import cpu_count, devices, memory_available, memory_installed


def describe() -> dict[str, Any]:
    """The processor, the cores that may be used, memory in bytes, the system, and how busy it was just now."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": cpu_count(),
        "memory": memory_installed(),
        "memory_available": memory_available(),
        "system": platform.platform(),
        "load_average": load,
        "devices": {each.id: each.name for each in devices()},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
