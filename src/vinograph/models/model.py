"""What an opened model is, whatever it was opened from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vinograph.models.manifest import Manifest
from vinograph.text import Tokenizer

if TYPE_CHECKING:
    from vinograph.models.parts import ComponentPlan


class Model(Protocol):
    """An opened model to draw with: a bundle, or a published checkpoint."""

    @property
    def path(self) -> Path:
        """The directory that it lies in."""

    @property
    def manifest(self) -> Manifest:
        """What it is; the files are those of a bundle."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def tokenizers(self) -> Collection[str]:
        """The tokenizers' names."""

    def plan(self, name: str) -> ComponentPlan | None:
        """How a component is built; None where it lies there as OpenVINO's file."""

    def weights_size(self, name: str) -> int:
        """Bytes of a component's weights."""

    def fingerprint(self, name: str) -> str:
        """What a component is known by between processes."""

    def tokenizer(self, name: str) -> Tokenizer:
        """Read a tokenizer. Raises DamagedModelError where its files are none."""

    @property
    def files(self) -> Collection[str]:
        """The names of the files that it is read from."""

    @property
    def hashed_files(self) -> Collection[str]:
        """Those of them that a hash is known of."""

    def verify(self) -> Iterator[str]:
        """Check every file, yielding the names of those that are right. Raises DamagedModelError where one isn't."""
