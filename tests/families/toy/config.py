"""The toy's configuration: what its drawing code needs to know of a model."""

from __future__ import annotations

from dataclasses import dataclass

from vinograph.families.contract import ManifestEntries
from vinograph.schema import Record, Whole


@dataclass(frozen=True)
class ToyConfig:
    """The channels of what is smoothed."""

    channels: int

    @classmethod
    def from_manifest(cls, entries: ManifestEntries) -> ToyConfig:
        """Read it from a manifest. Raises SchemaError for a value that makes no sense."""
        Record({"channels": Whole(1, 16)}, open=True).check("config", entries.config)
        return cls(entries.config["channels"])
