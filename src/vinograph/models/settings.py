"""What a checkpoint says of itself beside its networks: its own defaults and limits, and its licence."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph.errors import ModelError
from vinograph.families import registry
from vinograph.families.checks import LIMITS, check_defaults, check_limits
from vinograph.families.contract import Family
from vinograph.models.checkpoint import Checkpoint
from vinograph.models.manifest import Source
from vinograph.models.model_card import licence_of
from vinograph.schema import Named, Record, SchemaError, Text

SETTINGS_FILE = "vinograph.json"
_SCHEMA = Record({}, {"name": Text(200), "defaults": Named(Record({}, open=True)), "limits": Record({}, open=True)})


@dataclass(frozen=True)
class Settings:
    """A checkpoint's vinograph.json, which is checked; ``told`` is empty where it has none.

    Of a repository of the hub that is known by name, it is what the table of such models says.
    """

    origin: Checkpoint
    values: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Settings:
        """Read them.

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
        """What the model is called: the checkpoint's own name, where it doesn't say."""
        return str(self.values.get("name", self.origin.id.rpartition("/")[2]))

    def sets(self, call: str, arguments: Collection[str]) -> bool:
        """Whether all of these ``arguments`` of a call have defaults here."""
        given: Mapping[str, Any] = self.values.get("defaults", {}).get(call, {})
        return all(name in given for name in arguments)

    def limits(self, limits: Mapping[str, float]) -> dict[str, float]:
        """``limits``, where the checkpoint doesn't set its own.

        Raises:
            ModelError: it sets a limit that there isn't, or one that makes no sense.
        """
        own = self.values.get("limits", {})
        whole = {**limits, **own}
        if own:
            with self._explained():
                Record({}, LIMITS).check("limits", own)
                check_limits(whole)
        return whole

    def defaults(
        self, family: Family, defaults: Mapping[str, Mapping[str, Any]], limits: Mapping[str, float]
    ) -> dict[str, dict[str, Any]]:
        """What each call starts from: ``defaults``, where the checkpoint doesn't set its own.

        Sides of pictures in ``defaults`` become the nearest ones within ``limits``.

        Raises:
            ModelError: it sets what no call takes, or what a request with these ``limits`` could not ask for.
        """
        own = self.values.get("defaults", {})
        whole = {call: {**_within(defaults.get(call, {}), limits), **own.get(call, {})} for call in {**defaults, **own}}
        if self.values:  # limits of its own bear on the defaults, too
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
    """``defaults`` whose sides are such as a model with these ``limits`` draws."""
    multiple, least, most = (int(limits[name]) for name in ("size_multiple", "minimum_size", "maximum_size"))
    return {
        name: min(max(round(value / multiple) * multiple, least), most) if name in ("height", "width") else value
        for name, value in defaults.items()
    }


def size_limits(multiple: int, smallest: int, largest: int, native: int) -> dict[str, int]:
    """The limits of a model that draws multiples of ``multiple`` pixels, from ``smallest`` up to about ``largest``."""
    least = -(-smallest // multiple) * multiple
    return {
        "size_multiple": multiple,
        "minimum_size": least,
        "maximum_size": max(largest // multiple * multiple, least),
        "native_size": native,
    }


def source_of(checkpoint: Checkpoint, also: Mapping[str, str]) -> Source:
    """Where a model's weights come from; ``also`` are the ids of other checkpoints, by the part that they gave."""
    return Source(checkpoint.id, checkpoint.revision, licence_of(checkpoint.card()), also)


def licence_file(checkpoint: Checkpoint) -> Path | None:
    """The checkpoint's licence, where it has one."""
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"):
        if name in checkpoint.listing:
            checkpoint.fetch([name])
            return checkpoint.directory / name
    return None
