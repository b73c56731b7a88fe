"""One measured process: opens a system, draws, and tells what happens as lines of JSON on standard output.

This file is run by its path, by the interpreter of the system's own environment; it takes a task as JSON on standard
input, and whatever else is printed goes to standard error.

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

# What each system imports: the package that brings it.
NEEDS: Mapping[str, Mapping[str, str]] = {
    "vinograph": {"vinograph": "vinograph"},
    "diffusers": {"torch": "torch", "diffusers": "diffusers", "transformers": "transformers"},
    "optimum-intel": {"optimum.intel": "optimum-intel", "openvino": "openvino", "diffusers": "diffusers"},
    "openvino-genai": {"openvino_genai": "openvino-genai", "openvino": "openvino", "numpy": "numpy"},
    "notebook": {
        **{"torch": "torch", "diffusers": "diffusers", "transformers": "transformers"},
        "openvino": "openvino",
    },
}
# What making the export takes besides.
TO_PREPARE: Mapping[str, Mapping[str, str]] = {
    "optimum-intel": {"openvino_tokenizers": "openvino-tokenizers", "torch": "torch"},
}
MODULES = {"vinograph": "vinograph_", "diffusers": "diffusers_"}


class Speaker:
    """Standard output as it was; what else is printed from now on goes to standard error."""

    def __init__(self) -> None:
        self._lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def say(self, event: str, **told: Any) -> None:
        """One line."""
        print(json.dumps({"event": event, "at": time.perf_counter(), **told}), file=self._lines, flush=True)


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
    """Of Python and of the packages that the system is made of."""
    found = {"python": platform.python_version()}
    for package in {**dict.fromkeys(NEEDS[system].values()), "openvino": None, "optimum": None}:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def stolen() -> float:
    """Seconds that other guests of the same hardware have had this machine's processors, each counted; Linux tells."""
    try:
        told = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    return int(told[8]) / os.sysconf("SC_CLK_TCK")


def draw(speaker: Speaker, module: Any, task: Any, folder: str | None) -> None:
    """Open the system and draw each prompt, telling of each picture as it is there.

    One during which more was done than drawing is drawn again, unless it is the first.
    """
    opened = module.open_system(task)
    speaker.say("opened", same_noise=opened.same_noise)
    for index, prompt in enumerate(task.prompts):
        while True:
            start, before = time.perf_counter(), stolen()
            drawn = opened.draw(prompt)
            seconds = time.perf_counter() - start
            share = (stolen() - before) / (seconds * (os.cpu_count() or 1))
            for each in drawn.once:
                speaker.say("once", what=each, picture=index, seconds=seconds)
            if index == 0 or not drawn.once:
                break
        file = None
        if folder is not None:
            import numpy as np

            file = str(Path(folder) / f"{index}.npy")
            np.save(file, drawn.pictures)
        stages, computed = dict(drawn.stages), dict(drawn.computed)
        speaker.say("drawn", seconds=seconds, stolen=share, stages=stages, computed=computed, file=file)


def main() -> int:
    """Do what the command line says. Returns the exit code: 3 for what the system refuses."""
    what, system = sys.argv[1:3]
    speaker = Speaker()
    if what == "check":
        speaker.say("checked", missing=missing(system, "preparing" in sys.argv[3:]), versions=versions(system))
        return 0
    # The folder of this file comes last, so that nothing in it hides a package.
    sys.path.append(sys.path.pop(0))
    told = json.load(sys.stdin)
    folder = told.pop("folder", None)
    speaker.say("started", versions=versions(system))
    common = importlib.import_module("systems.common")
    try:
        module = importlib.import_module(f"systems.{MODULES.get(system, system.replace('-', '_'))}")
        speaker.say("imported")
        task = common.Task(**told)
        if what == "prepare":
            module.prepare(task)
            speaker.say("prepared")
        else:
            draw(speaker, module, task, folder)
    except common.RefusedError as error:
        speaker.say("refused", message=str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
