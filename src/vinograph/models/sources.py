"""Sources of graphs for sessions: graphs that are built over a checkpoint's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino as ov

    from vinograph.models.parts import ComponentPlan
    from vinograph.networks.graph import Network


@dataclass
class NetworkSource:
    """A component whose graph is built at its first reading, over a checkpoint's mapped weights."""

    plan: ComponentPlan
    remedy: str = "the weights may be damaged: compare the checkpoint's files with the published ones"

    def __post_init__(self) -> None:
        self._network: Network | None = None

    @property
    def name(self) -> str:
        """The component's name."""
        return self.plan.name

    @property
    def f16_safe(self) -> bool:
        """Whether the component can be computed in f16."""
        return self.plan.f16_safe

    @property
    def files(self) -> tuple[Path, ...]:
        """The files with the component's weights."""
        return self.plan.files

    @property
    def size(self) -> int:
        """The bytes of the component's weights."""
        return self.plan.size

    def read(self) -> ov.Model:
        """A copy of the graph, which is built once. All copies share this source's weights."""
        from vinograph.networks.graph import Storage

        if self._network is None:
            self._network = self.plan.build(Storage())
        return self._network.model.clone()
