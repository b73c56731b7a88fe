"""Toy checkpoints that are known by name: none is published."""

from __future__ import annotations

from vinograph.families.known import KnownModel

KNOWN: tuple[KnownModel, ...] = ()
