"""Checkpoints with any configurations, indexes and cards are converted or refused by name.

Most attempts stop before writing; only a few convert to the end.
"""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from random import Random
from unittest import mock

from tests.fuzz import Attempt, Target
from tests.fuzz.documents import damaged, linked_copy, mutated, replace, run

_WHOLE = 0.05  # share of attempts that convert to the end, if nothing is refused
_SETTINGS = {
    "name": "mine",
    "defaults": {"generate": {"height": 128, "width": 128, "strength": 0.5}},
    "limits": {"size_multiple": 128, "minimum_size": 128, "maximum_size": 512, "native_size": 128},
}


def _prepare(prepared: Path) -> Attempt:
    from tests.checkpoints import PIXART_TINY, SDXL_TINY, TINY, save_pixart, save_sdxl, save_wuerstchen

    checkpoints = {
        "wuerstchen": save_wuerstchen(prepared / "w", TINY).decoder,
        "sdxl": save_sdxl(prepared / "s", SDXL_TINY).home,
        "pixart": save_pixart(prepared / "p", PIXART_TINY).home,
    }
    for checkpoint in checkpoints.values():
        (checkpoint / "vinograph.json").write_text(json.dumps(_SETTINGS), encoding="utf-8")

    def attempt(random: Random, folder: Path) -> None:
        family = random.choice(list(checkpoints))
        copy = linked_copy(checkpoints[family], folder / "checkpoint")
        names = sorted(file for file in copy.rglob("*.json") if "tokenizer" not in file.parent.name)
        file = random.choice([*names, copy / "README.md", copy / "model_index.json", copy / "vinograph.json"])
        content = file.read_bytes()
        if file.suffix == ".json":
            replace(file, mutated(random, json.loads(content)))
        else:
            replace(file, damaged(random, content))
        if random.random() < _WHOLE:
            code = run(["convert", copy, folder / "bundle"])
            if code == 0:
                assert run(["inspect", folder / "bundle"]) == 0
            shutil.rmtree(folder / "bundle", ignore_errors=True)
        else:
            with mock.patch.object(
                import_module("vinograph.convert.assemble"), "BundleWriter", side_effect=_StoppedError
            ):
                try:
                    code = run(["convert", copy, folder / "bundle"])
                except _StoppedError:
                    code = 0
        assert code == 0 or [each.name for each in folder.iterdir()] == ["checkpoint"], f"exit code {code} left files"

    return attempt


class _StoppedError(BaseException):
    """Everything before writing has been checked."""


TARGETS = [Target("config", _prepare, attempts=10)]
