"""The types of each family's ``known.py``: published models with a short name, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Companion:
    """Another repository of the hub that a known model is completed with.

    ``option`` is the option of the family's opener that takes it: a whole checkpoint, or the one
    ``file`` that is needed. An ``optional`` companion is fetched only on demand. ``about`` says
    what it is for.
    """

    option: str
    repository: str
    licence: str
    about: str
    file: str | None = None
    optional: bool = False

    @property
    def name(self) -> str:
        """Name of the companion on the command line."""
        return self.option.replace("_", "-")


@dataclass(frozen=True)
class KnownModel:
    """A published model with a short ``name``, and its ``repository`` of the hub.

    ``licence`` is the one that its model card names. ``download`` is the approximate number of
    bytes to fetch, companions that are not optional included. ``about`` says on one line what the
    model is for. ``defaults`` are defaults of "generate" that its checkpoint doesn't state itself.
    """

    name: str
    repository: str
    licence: str
    download: int
    about: str
    companions: tuple[Companion, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def required(self) -> tuple[Companion, ...]:
        """The companions that are always fetched."""
        return tuple(each for each in self.companions if not each.optional)

    @property
    def optional(self) -> tuple[Companion, ...]:
        """The companions that are fetched on demand."""
        return tuple(each for each in self.companions if each.optional)
