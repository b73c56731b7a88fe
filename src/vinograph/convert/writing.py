"""A component to an OpenVINO IR on disk: dynamic where its ports say so, the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import openvino as ov

from vinograph.convert.compression import COMPRESSED, compress
from vinograph.convert.scratch import Scratch
from vinograph.models.checkpoint_model import manifest_component
from vinograph.models.manifest import Component
from vinograph.models.parts import ComponentPlan
from vinograph.networks.graph import Storage, number_nodes, storage_of
from vinograph.runtime import ir

_MODEL_NAME = "vinograph"


def write_component(
    plan: ComponentPlan, file: Path, weights: str, stopped: Event | None = None
) -> tuple[Component, str]:
    """Write a component as OpenVINO IR: ``file`` (.xml) and its .bin, with weights stored as ``weights``.

    That is "f32", which leaves them as the checkpoint has them; or "f16"; or "int8" and "int4", in
    which components that aren't to be compressed are stored in f16. Those of a graph that was IR
    already stay as they are. What is converted or computed lies in a file beside it meanwhile, not
    in memory.

    Setting ``stopped`` ends the writing early.

    Returns:
        What the manifest says of it, and the SHA-256 of the .bin file.

    Raises:
        OSError: the disk is full.
        InterruptedError: ``stopped`` was set.
    """
    few_bits = weights in COMPRESSED and plan.compressible
    with Scratch(file.parent) as scratch:
        network = plan.build(Storage(halve=weights != "f32", allocate=scratch.allocate))
        if few_bits and not plan.is_ir:
            compress(network.model, weights, scratch.keep)
        number_nodes(network.model) if not plan.is_ir else _name_nodes(network.model)
        digest = ir.save(network.model, file, stopped)
        stored = storage_of(network.model)
    return manifest_component(file.name, network.ports, stored, network.f16_safe), digest


def _name_nodes(model: ov.Model) -> None:
    """Number all nodes of a graph that others exported. Inner tensors go nameless."""
    model.set_friendly_name(_MODEL_NAME)
    for index, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        node.set_friendly_name(f"{kind}_{index}")
        for output in node.outputs():
            users = [user.get_node().get_type_name() for user in output.get_target_inputs()]
            if kind not in ("Parameter", "Result") and "Result" not in users:
                output.get_tensor().set_names(set())
