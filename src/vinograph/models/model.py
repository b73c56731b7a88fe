"""The interface of an opened model, whatever it was opened from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vinograph.models.manifest import Manifest
from vinograph.text import Tokenizer

if TYPE_CHECKING:
    from vinograph.models.parts import ComponentPlan


class Model(Protocol):
    """A model to draw with: an opened bundle or published checkpoint."""

    @property
    def path(self) -> Path:
        """The directory of the model."""

    @property
    def manifest(self) -> Manifest:
        """The model's manifest, whose ``files`` only a bundle fills."""

    @property
    def size(self) -> int:
        """The model's bytes on the disk."""

    @property
    def tokenizers(self) -> Collection[str]:
        """The tokenizers' names."""

    def component_plan(self, name: str) -> ComponentPlan | None:
        """The plan by which a component is built; None where its graph is a file."""

    def extension(self, name: str) -> Callable[[Any], None] | None:
        """A function that adds to a component's graph what isn't in its files; None where all is."""

    def weights_size(self, name: str) -> int:
        """The bytes of a component's weights."""

    def fingerprint(self, name: str) -> str:
        """A text that changes whenever the component does, as a key of caches."""

    def tokenizer(self, name: str) -> Tokenizer:
        """Read a tokenizer; raises DamagedModelError where its files are damaged."""

    @property
    def files(self) -> Collection[str]:
        """The names of the files that the model is read from."""

    @property
    def hashed_files(self) -> Collection[str]:
        """The names of the files whose hash is known."""

    def verify(self) -> Iterator[str]:
        """Check every file, yielding the name of each right one. Raises DamagedModelError."""
