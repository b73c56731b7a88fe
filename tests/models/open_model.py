"""A checkpoint opened as conversion opens it, and the sums of what its components hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from vinograph.models import opening
from vinograph.models.checkpoint import locate
from vinograph.models.checkpoint_model import OpenedCheckpoint
from vinograph.networks.graph import Network, Storage


def open_model(source: str | Path, revision: str | None = None, **options: Any) -> OpenedCheckpoint:
    """Open the checkpoint at ``source``: everything is found and checked, nothing is built."""
    checkpoint = locate(source, revision)
    index, family = opening.identify(checkpoint)
    return opening.open_checkpoint(checkpoint, index, family, options)


def components(opened: OpenedCheckpoint) -> set[str]:
    """The names of its components."""
    return {plan.name for plan in opened.components}


def networks(opened: OpenedCheckpoint, storage: Storage | None = None) -> dict[str, Network]:
    """Its components, built over weights as they are stored."""
    return {plan.name: plan.build(storage or Storage()) for plan in opened.components}


def constants(network: Network) -> list[ov.Node]:
    """The constants of numbers in a graph."""
    kinds = (ov.Type.f32, ov.Type.f16)
    nodes = [node for node in network.model.get_ops() if node.get_type_name() == "Constant"]
    return [node for node in nodes if node.get_output_element_type(0) in kinds]


def total(network: Network) -> float:
    """The sum of the sizes of all numbers in a graph."""
    return float(sum(np.abs(node.data.astype(np.float64)).sum() for node in constants(network)))


def sums(opened: OpenedCheckpoint) -> dict[str, float]:
    """The sum of each component's weights."""
    return {name: total(network) for name, network in networks(opened).items()}
