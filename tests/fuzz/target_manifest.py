"""Manifests: with any bundle.json, inspect and generate end as they should."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from tests.fuzz import Attempt, Target
from tests.fuzz.documents import linked_copy, mutated, replace, run

_SMALL = {"wuerstchen": 128, "sdxl": 64, "pixart": 64}
_DRAWN = 0.3  # share of attempts that generate a picture


def _prepare(folder: Path) -> Attempt:
    bundles = {
        "wuerstchen": save_bundle(folder / "wuerstchen").path,
        "sdxl": save_sdxl_bundle(folder / "sdxl").path,
        "pixart": save_pixart_bundle(folder / "pixart").path,
    }
    manifests = {name: json.loads((path / "bundle.json").read_text("utf-8")) for name, path in bundles.items()}

    def attempt(random: Random, folder: Path) -> None:
        name = random.choice(list(bundles))
        copy = linked_copy(bundles[name], folder / "bundle")
        replace(copy / "bundle.json", mutated(random, manifests[name]))
        looked = run(["inspect", copy, *random.choice(([], ["--json"]))])
        assert looked in (0, 3, 4), f"inspect ended with {looked}"
        if random.random() < _DRAWN:
            side = _SMALL[name]
            size = ("--size", f"{side}x{side}", "--steps", 1, "--count", 1, "--seed", 7)
            drawn = run(["generate", "a house", "--model", copy, "--output", folder / "a.png", *size])
            assert looked == 0 or drawn == looked, f"inspect ended with {looked}, generate with {drawn}"

    return attempt


TARGETS = [Target("manifest", _prepare, attempts=30)]
