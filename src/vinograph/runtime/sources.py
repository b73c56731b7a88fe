"""Where a component's graph comes from: a file of OpenVINO's, or a network built over a checkpoint's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import openvino as ov

from vinograph.runtime.devices import core


class GraphSource(Protocol):
    """A component that can be read again and again.

    ``f16_safe`` is False where half-precision arithmetic overflows. ``remedy`` says what to do where it computes NaN
    in f32, which sound weights don't.
    """

    @property
    def name(self) -> str:
        """The component's name."""

    @property
    def f16_safe(self) -> bool:
        """Whether it can be computed in f16."""

    @property
    def remedy(self) -> str:
        """What to do where its weights seem to be damaged."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the graph is read from, those with its weights last."""

    @property
    def size(self) -> int:
        """Bytes of its weights; 0 where the files are gone, which reading explains."""

    def read(self) -> ov.Model:
        """The graph, read anew, its weights mapped. Whoever gets it may change it.

        Raises:
            RuntimeError: OpenVINO can't read it.
        """


@dataclass(frozen=True)
class IrFile:
    """A component that lies in OpenVINO's format: ``xml``, and a .bin of the same name beside it."""

    name: str
    xml: Path
    f16_safe: bool = True
    remedy: str = "the weights may be damaged: run `vinograph verify` on the bundle, or convert the model again"

    @property
    def weights(self) -> Path:
        """The file with its weights."""
        return self.xml.with_suffix(".bin")

    @property
    def files(self) -> tuple[Path, ...]:
        """Both files."""
        return self.xml, self.weights

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        try:
            return self.weights.stat().st_size
        except OSError:
            return 0

    def read(self) -> ov.Model:
        """The graph, its weights mapped."""
        return core().read_model(self.xml)
