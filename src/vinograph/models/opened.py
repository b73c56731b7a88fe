"""An opened model: its manifest, and its components before they are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph.manifest import Manifest
from vinograph.models.checkpoint import Checkpoint
from vinograph.models.parts import ComponentPlan
from vinograph.models.tokenizers import CLIP, Kind


@dataclass(frozen=True)
class TokenizerPlan:
    """The folder of a tokenizer's files, the most tokens that its text encoder takes, and what kind it is."""

    folder: Path
    text_length: int
    kind: Kind = CLIP


@dataclass(frozen=True)
class Opened:
    """A published checkpoint that has been compared with the networks of its family.

    ``manifest`` has neither components nor tokenizers nor files, which only a bundle has. ``files`` are all that the
    model is read from.
    """

    manifest: Manifest
    components: tuple[ComponentPlan, ...]
    tokenizers: Mapping[str, TokenizerPlan]
    files: tuple[Path, ...]
    licence_file: Path | None


@dataclass(frozen=True)
class Published:
    """A published checkpoint: its ``index`` is what model_index.json says, ``options`` the family's that were given."""

    checkpoint: Checkpoint
    index: Mapping[str, Any]
    options: Mapping[str, Any]


Opener = Callable[[Published], Opened]
