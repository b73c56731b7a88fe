"""What a checkpoint says of itself beside its networks: its own defaults and limits, and its licence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph.convert.checkpoint import Checkpoint
from vinograph.errors import ModelError

SETTINGS_FILE = "vinograph.json"


@dataclass(frozen=True)
class Settings:
    """A checkpoint's vinograph.json; ``told`` is empty where it has none."""

    origin: Checkpoint
    told: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Settings:
        """Read them.

        Raises:
            DamagedModelError: the file is not a JSON object.
        """
        found = SETTINGS_FILE in checkpoint.listing
        return cls(checkpoint, checkpoint.read_json(SETTINGS_FILE) if found else {})

    @property
    def name(self) -> str:
        """What the model is called: the checkpoint's own name, where it doesn't say."""
        return str(self.told.get("name", self.origin.id.rpartition("/")[2]))

    def defaults(self, defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """What each call starts from: ``defaults``, where the checkpoint doesn't set its own.

        Raises:
            ModelError: it sets what no call takes, or what is no number.
        """
        told = self.told.get("defaults", {})
        if not isinstance(told, dict) or not told.keys() <= defaults.keys():
            raise ModelError(
                f"{self.origin.id}: {SETTINGS_FILE} has defaults {told!r}; give them for {', '.join(defaults)}"
            )
        return {call: {**own, **self._numbers(told, call, own)} for call, own in defaults.items()}

    def limits(self, limits: Mapping[str, float]) -> dict[str, float]:
        """``limits``, where the checkpoint doesn't set its own.

        Raises:
            ModelError: it sets a limit that there isn't, or one that is no number.
        """
        return {**limits, **self._numbers(self.told, "limits", limits)}

    def _numbers(self, settings: Mapping[str, Any], key: str, known: Collection[str]) -> dict[str, float]:
        found = settings.get(key, {})
        values = list(found.values()) if isinstance(found, dict) else [None]
        numeric = all(isinstance(each, int | float) and math.isfinite(each) for each in values)
        if not numeric or not found.keys() <= set(known):
            raise ModelError(
                f"{self.origin.id}: {SETTINGS_FILE} has {key} {found!r}; give numbers for {', '.join(sorted(known))}"
            )
        return dict(found)


def licence_file(checkpoint: Checkpoint) -> Path | None:
    """The checkpoint's licence, where it has one."""
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"):
        if name in checkpoint.listing:
            checkpoint.fetch([name])
            return checkpoint.directory / name
    return None
