"""What a checkpoint's vinograph.json sets: its name, defaults, limits, words; and its licence."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph.errors import ModelError
from vinograph.families import registry
from vinograph.families.checks import check_defaults
from vinograph.families.contract import Family
from vinograph.families.sizes import SIZE_KINDS, SizeLimits
from vinograph.models.checkpoint import Checkpoint
from vinograph.models.manifest import Source
from vinograph.models.manifest_schema import NAME, VOCABULARY
from vinograph.models.model_card import licence_of
from vinograph.schema import Named, Record, SchemaError

SETTINGS_FILE = "vinograph.json"
_SCHEMA = Record(
    {},
    {
        "name": NAME,
        "defaults": Named(Record({}, open=True)),
        "limits": Record({}, open=True),
        "vocabulary": VOCABULARY,
    },
)


@dataclass(frozen=True)
class Settings:
    """The settings of a checkpoint: the ``values`` of its vinograph.json, empty where it has none.

    For a hub repository that is known by name, they come from the table of known models.
    """

    origin: Checkpoint
    values: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Settings:
        """Read a checkpoint's settings.

        Raises:
            ModelError: a setting is unknown, or of the wrong kind.
            DamagedModelError: the file is not a JSON object.
        """
        own = SETTINGS_FILE in checkpoint.listing
        found = checkpoint.read_json(SETTINGS_FILE) if own else _known_settings(checkpoint)
        settings = cls(checkpoint, found)
        with settings._explained():
            _SCHEMA.check("", found)
        return settings

    @property
    def name(self) -> str:
        """The model's name, by default that of the checkpoint."""
        return str(self.values.get("name", self.origin.id.rpartition("/")[2]))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that the model has seen; none where they aren't known."""
        return tuple(self.values.get("vocabulary", ()))

    def sets(self, call: str, arguments: Collection[str]) -> bool:
        """Whether the settings have defaults for all of these ``arguments`` of a call."""
        given: Mapping[str, Any] = self.values.get("defaults", {}).get(call, {})
        return all(name in given for name in arguments)

    def limits(self, limits: Mapping[str, float]) -> dict[str, float]:
        """The family's ``limits``, replaced by those that the checkpoint sets.

        Raises:
            ModelError: the checkpoint sets an unknown limit, or one that makes no sense.
        """
        own = self.values.get("limits", {})
        whole = {**limits, **own}
        if own:
            with self._explained():
                Record({}, SIZE_KINDS).check("limits", own)
                SizeLimits.from_mapping(whole)
        return whole

    def defaults(
        self, family: Family, defaults: Mapping[str, Mapping[str, Any]], limits: Mapping[str, float]
    ) -> dict[str, dict[str, Any]]:
        """The defaults of each call: the family's, replaced by those that the checkpoint sets.

        A width or height among the family's becomes the nearest one within ``limits``.

        Raises:
            ModelError: the checkpoint sets a default that no call takes, or that lies outside the
                ``limits``.
        """
        own = self.values.get("defaults", {})
        whole = {call: {**_within(defaults.get(call, {}), limits), **own.get(call, {})} for call in {**defaults, **own}}
        if self.values:  # its own limits apply to the family's defaults, too
            with self._explained():
                check_defaults(family, whole, limits)
        return whole

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SchemaError as error:
            raise ModelError(f"{self.origin.id}: {SETTINGS_FILE} can't be used: {error}") from error


def _known_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    for _, known in registry.known_models().values():
        if checkpoint.is_hub and checkpoint.id == known.repository and known.defaults:
            return {"defaults": {"generate": dict(known.defaults)}}
    return {}


def _within(defaults: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
    """``defaults`` with their width and height rounded to ones within ``limits``."""
    multiple, least, most = (int(limits[name]) for name in ("size_multiple", "minimum_size", "maximum_size"))
    return {
        name: min(max(round(value / multiple) * multiple, least), most) if name in ("height", "width") else value
        for name, value in defaults.items()
    }


def size_limits(multiple: int, smallest: int, largest: int, native: int) -> dict[str, int]:
    """Limits for multiples of ``multiple`` pixels, from ``smallest`` up to about ``largest``."""
    least = -(-smallest // multiple) * multiple
    return {
        "size_multiple": multiple,
        "minimum_size": least,
        "maximum_size": max(largest // multiple * multiple, least),
        "native_size": native,
    }


def source_of(checkpoint: Checkpoint, also: Mapping[str, str]) -> Source:
    """A model's source for its manifest; ``also`` has other checkpoints' ids, by their part."""
    return Source(checkpoint.id, checkpoint.revision, licence_of(checkpoint.card()), also)


def licence_file(checkpoint: Checkpoint) -> Path | None:
    """The file of the checkpoint's licence, if it has one."""
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"):
        if name in checkpoint.listing:
            checkpoint.fetch([name])
            return checkpoint.directory / name
    return None
