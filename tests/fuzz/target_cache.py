"""The cache: any broken file in its folder is reported, and commands work without it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from unittest import mock

from tests.fuzz import Attempt, Target
from tests.fuzz.documents import damaged, mutated, run
from vinograph.runtime.cache import Cache, Description
from vinograph.runtime.tuning import CacheKey, Machine, Tuner, _component_key, settings_key

_DESCRIPTION = Description("tiny", "unet", "sample 1x4x8x8")
_SHAPES = {"sample": (1, 4, 8, 8)}
_MACHINE = Machine(("a processor", "2"), "bf16", 32)


def _prepare(prepared: Path) -> Attempt:
    def attempt(random: Random, folder: Path) -> None:
        cache = Cache(folder)
        cache.put("a", bytes(100), _DESCRIPTION)
        cache_key = CacheKey("tiny", "unet", "b", True, cache)
        settings = {
            key: {
                **vars(_DESCRIPTION),
                "chosen": {"group": 64, "precision": None},
                "setting": "groups of 64",
                "seconds": {"groups of 64": 0.8},
                "of": _component_key(cache_key, "auto", _MACHINE),
                "size": {"sample": 256},
                "spent": 1.0,
                "cost": 2.0,
            }
            for key in ("near", settings_key(cache_key, _SHAPES, "auto", _MACHINE))
        }
        (folder / "settings.json").write_bytes(mutated(random, {"format": 1, "settings": settings}))
        blob = folder / "compiled" / "a.blob"
        head, _, payload = blob.read_bytes().partition(b"\n")
        blob.write_bytes(damaged(random, mutated(random, json.loads(head)) + b"\n" + payload))
        (folder / "limit").write_bytes(damaged(random, b"500000000\n"))
        assert cache.get("a") in (None, bytes(100))
        assert cache.limit >= 0
        cache.entries()
        tuner = Tuner(cache_key, "auto", _MACHINE)
        for shapes in (_SHAPES, {"sample": (1, 4, 16, 8)}):
            tuner.setting(shapes)
        cache.remember("c", lambda known: {**known, "spent": 1})
        with mock.patch.dict("os.environ", {"VINOGRAPH_CACHE": str(folder)}):
            assert run(["cache", *random.choice(([], ["--json"]))]) == 0

    return attempt


TARGETS = [Target("cache", _prepare, attempts=20)]
