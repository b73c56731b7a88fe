"""Where a component's graph is read from: a file in OpenVINO's format, or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import openvino as ov

from vinograph.runtime.devices import core


class GraphSource(Protocol):
    """A component's graph, which can be read any number of times."""

    @property
    def name(self) -> str:
        """The component's name."""

    @property
    def f16_safe(self) -> bool:
        """False where half-precision arithmetic overflows."""

    @property
    def remedy(self) -> str:
        """What to do if it computes NaN in f32, which sound weights don't."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the graph is read from; those with its weights come last."""

    @property
    def size(self) -> int:
        """Bytes of its weights; 0 if the files are gone, which :meth:`read` explains."""

    def read(self) -> ov.Model:
        """The graph, read anew with its weights mapped, so that the caller may change it.

        Raises:
            RuntimeError: OpenVINO can't read it.
        """


@dataclass(frozen=True)
class IrFile:
    """A component in OpenVINO's format: ``xml``, and a .bin of the same name in the same folder."""

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
        """The .xml and the .bin."""
        return self.xml, self.weights

    @property
    def size(self) -> int:
        """Bytes of the .bin; 0 if it is gone."""
        try:
            return self.weights.stat().st_size
        except OSError:
            return 0

    def read(self) -> ov.Model:
        """The graph, with its weights mapped."""
        return core().read_model(self.xml)
