"""Writes a component as OpenVINO IR, with the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import openvino as ov

from vinograph.convert.compression import COMPRESSED, compress
from vinograph.models.checkpoint_model import manifest_component
from vinograph.models.manifest import Component
from vinograph.models.parts import ComponentPlan
from vinograph.networks.graph import Storage, number_nodes, storage_of
from vinograph.runtime import ir
from vinograph.runtime.scratch import Scratch

_MODEL_NAME = "vinograph"


def write_component(plan: ComponentPlan, file: Path, weights: str, stopped: Event) -> tuple[Component, str]:
    """Write a component as OpenVINO IR: ``file`` (.xml) and its .bin.

    ``weights`` is how they are stored. "f32" leaves them as the checkpoint has them, and "f16"
    halves them. With "int8" and "int4", components that can't be compressed are stored in f16.
    Weights of a graph that was IR already are unchanged. Converted and computed weights go into a
    scratch file next to ``file``, to save memory.

    Setting ``stopped`` ends the writing early.

    Returns:
        The component's entry in the manifest, and the SHA-256 of the .bin file.

    Raises:
        OSError: the disk is full.
        InterruptedError: ``stopped`` was set.
    """
    low_bit = weights in COMPRESSED and plan.compressible
    with Scratch(file.parent) as scratch:
        network = plan.build(Storage(halve=weights != "f32", allocate=scratch.allocate))
        if low_bit and not plan.is_ir:
            compress(network.model, weights, scratch.keep)
        number_nodes(network.model) if not plan.is_ir else _name_nodes(network.model)
        digest = ir.save(network.model, file, stopped)
        stored = storage_of(network.model)
    return manifest_component(file.name, network.ports, stored, network.f16_safe), digest


def _name_nodes(model: ov.Model) -> None:
    """Number all nodes of an exported graph, and delete the names of its inner tensors."""
    model.set_friendly_name(_MODEL_NAME)
    for index, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        node.set_friendly_name(f"{kind}_{index}")
        for output in node.outputs():
            users = [user.get_node().get_type_name() for user in output.get_target_inputs()]
            if kind not in ("Parameter", "Result") and "Result" not in users:
                output.get_tensor().set_names(set())
