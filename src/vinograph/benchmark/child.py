"""The program of one measured process: it opens a system, draws, and writes events as JSON.

It is run by its path, with the interpreter of the system's own environment. The task comes as JSON
on standard input; events go to standard output, and whatever else is printed to standard error.

    python child.py draw SYSTEM|check SYSTEM|prepare SYSTEM
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The modules that each system imports, with the package that brings each.
NEEDS: Mapping[str, Mapping[str, str]] = {
    "vinograph": {"vinograph": "vinograph"},
    "diffusers": {"torch": "torch", "diffusers": "diffusers", "transformers": "transformers"},
    "optimum-intel": {"optimum.intel": "optimum-intel", "openvino": "openvino", "diffusers": "diffusers"},
    "openvino-genai": {"openvino_genai": "openvino-genai", "openvino": "openvino", "numpy": "numpy"},
    "stable-diffusion.cpp": {"stable_diffusion_cpp": "stable-diffusion-cpp-python", "numpy": "numpy"},
    "notebook": {
        **{"torch": "torch", "diffusers": "diffusers", "transformers": "transformers"},
        "openvino": "openvino",
    },
}
# The modules that preparing files takes besides.
TO_PREPARE: Mapping[str, Mapping[str, str]] = {
    "optimum-intel": {"openvino_tokenizers": "openvino-tokenizers", "torch": "torch"},
}
MODULES = {"vinograph": "vinograph_", "diffusers": "diffusers_", "stable-diffusion.cpp": "stable_diffusion_cpp"}


class EventWriter:
    """Writes events to standard output, and sends whatever else is printed to standard error."""

    def __init__(self) -> None:
        self._lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def write(self, event: str, **fields: Any) -> None:
        """Write an event as one line."""
        print(json.dumps({"event": event, "at": time.perf_counter(), **fields}), file=self._lines, flush=True)


def missing(system: str, preparing: bool) -> list[str]:
    """The packages that this environment lacks."""
    needs = {**NEEDS[system], **(TO_PREPARE.get(system, {}) if preparing else {})}
    return [package for module, package in needs.items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def versions(system: str) -> dict[str, str]:
    """The versions of Python and of the packages that the system uses."""
    found = {"python": platform.python_version()}
    for package in {**dict.fromkeys(NEEDS[system].values()), "openvino": None, "optimum": None}:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_steal() -> float:
    """Seconds of CPU time that other guests of the same hardware have taken from this machine.

    It is the field "steal" of Linux's /proc/stat, and 0 on other systems.
    """
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def draw(events: EventWriter, module: Any, task: Any, folder: str | None) -> None:
    """Open the system and draw each prompt, with an event for each picture."""
    opened = module.open_system(task)
    events.write("opened", same_noise=opened.same_noise)
    for index, prompt in enumerate(task.prompts):
        start, before = time.perf_counter(), cpu_steal()
        drawn = opened.draw(prompt)
        seconds = time.perf_counter() - start
        share = (cpu_steal() - before) / (seconds * (os.cpu_count() or 1))
        file = None
        if folder is not None:
            import numpy as np

            file = str(Path(folder) / f"{index}.npy")
            np.save(file, drawn.pictures)
        stages, computed = dict(drawn.stages), dict(drawn.computed)
        events.write("drawn", seconds=seconds, cpu_steal=share, stages=stages, computed=computed, file=file)


def main() -> int:
    """Run the command line's action; the exit code is 3 where the system refuses the task."""
    what, system = sys.argv[1:3]
    events = EventWriter()
    if what == "check":
        events.write("checked", missing=missing(system, "preparing" in sys.argv[3:]), versions=versions(system))
        return 0
    # The folder of this file comes last, so that nothing in it hides a package.
    sys.path.append(sys.path.pop(0))
    fields = json.load(sys.stdin)
    folder = fields.pop("folder", None)
    events.write("started", versions=versions(system))
    common = importlib.import_module("systems.common")
    try:
        module = importlib.import_module(f"systems.{MODULES.get(system, system.replace('-', '_'))}")
        events.write("imported")
        task = common.Task(**fields)
        if what == "prepare":
            module.prepare(task)
            events.write("prepared")
        else:
            draw(events, module, task, folder)
    except common.RefusedError as error:
        events.write("refused", message=str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
