"""A published checkpoint, opened by its family.

A family opens its own in its module ``checkpoint``. That has ``PIPELINES``, the class names in a model_index.json that
are its own; ``CLASSES``, the library and class that each part may have; ``NETWORKS``, the networks that no other family
has; ``SINGLE_FILES``, how tensors begin that its single files have, and of which model they are then; ``OPTIONS``, the
options it takes; ``WEIGHTS``, how a bundle of it may store weights; and ``open_published``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from vinograph.errors import ModelError, RequestError
from vinograph.families import registry
from vinograph.models.checkpoint import INDEX_FILE, BeforeFetch, Checkpoint, nothing_before
from vinograph.models.opened import Opened, Published
from vinograph.models.recognition import recognized
from vinograph.schema import label
from vinograph.values import shown


def look_at(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], str]:
    """What a checkpoint's model_index.json says, and its family. Nothing large is read or fetched.

    Raises:
        ModelError: its family is none of ours, or it is no whole checkpoint.
        DamagedModelError: the index is damaged.
    """
    index = _index(checkpoint)
    return index, family_of(index, checkpoint.id)


def opener(family: str) -> ModuleType:
    """The module that opens checkpoints of a family."""
    return registry.module(family, "checkpoint")


def open_checkpoint(
    checkpoint: Checkpoint,
    index: Mapping[str, Any],
    family: str,
    options: Mapping[str, Any],
    before_fetch: BeforeFetch = nothing_before,
) -> Opened:
    """Open a checkpoint: configurations and headers are read and compared, no weight is.

    ``options`` are those of the family: the sources of a ``prior`` or a ``tiny_vae``, the file of an ``image_encoder``.
    ``before_fetch`` is called with all the files that are needed, before any large one is fetched.

    Raises:
        RequestError: an option is not one that the family takes.
        ModelError: weights are missing or pickled; a class is unknown; a configuration isn't computed here.
        DamagedModelError: a file of the checkpoint is not what it should be.
    """
    known = opener(family)
    for name in options:
        if name not in known.OPTIONS:
            takes = ", ".join(map(_option, known.OPTIONS)) or "none"
            raise RequestError(f"{_option(name)} is not an option of {family} models; theirs: {takes}")
    opened: Opened = known.open_published(Published(checkpoint, index, options, before_fetch))
    return opened


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _index(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's model_index.json. What is known to be no whole checkpoint is told from what is incomplete."""
    if INDEX_FILE not in checkpoint.listing and (what := recognized(checkpoint)) is not None:
        raise ModelError(f"{checkpoint.id} has no {INDEX_FILE}: it is {what}")
    return checkpoint.read_json(INDEX_FILE)


def family_of(index: Mapping[str, Any], origin: str) -> str:
    """The family of the pipeline that a model_index.json names.

    Raises:
        ModelError: it is none of ours, naming those.
    """
    pipeline = index.get("_class_name")
    if pipeline is None:
        raise ModelError(f"{origin}: {INDEX_FILE} names no pipeline (_class_name), so what to draw with is unknown")
    if not isinstance(pipeline, str):
        raise ModelError(f"{origin}: {INDEX_FILE} asks for code of its own ({shown(pipeline)}); Vinograph runs none")
    known = {name: opener(name).PIPELINES for name in registry.FAMILIES}
    for name, pipelines in known.items():
        if pipeline in pipelines:
            return name
    ours = "; ".join(f"{name} ({', '.join(pipelines)})" for name, pipelines in known.items())
    raise ModelError(f"{origin} is a {label(pipeline)}, which Vinograph doesn't open. It opens {ours}")
