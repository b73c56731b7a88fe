"""Opening a published checkpoint: its family is identified, and the family's module opens it.

Each family has a module ``checkpoint`` with

- ``PIPELINES``: the class names in a model_index.json that are the family's,
- ``CLASSES``: the library and class that each part may have,
- ``NETWORKS``: the networks that no other family has, by class name,
- ``SINGLE_FILES``: the model that a single file is of, by how names of its tensors begin,
- ``reads_file``, of a family that opens single files: whether it opens one, by the names of its tensors,
- ``OPTIONS``: the options of opening that the family takes,
- ``WEIGHTS``: how a bundle of the family may store weights,
- ``open_published``: the function that opens a :class:`PublishedCheckpoint`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from vinograph.errors import ModelError, RequestError
from vinograph.families import registry
from vinograph.models.checkpoint import INDEX_FILE, BeforeFetch, Checkpoint, do_nothing_before_fetch
from vinograph.models.checkpoint_model import OpenedCheckpoint, PublishedCheckpoint
from vinograph.models.recognition import family_of_file, family_of_network, recognize
from vinograph.models.settings import Settings
from vinograph.schema import label
from vinograph.values import shown

BASE = "base"
"""The option that names the model which completes another."""
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def identify(checkpoint: Checkpoint, options: Mapping[str, Any] = _NO_OPTIONS) -> tuple[Mapping[str, Any], str]:
    """The model_index.json of a checkpoint, and its family. Nothing large is read or fetched.

    A single file has no index, nor has a network alone that the option ``base`` completes.

    Raises:
        ModelError: the family is unknown, or the checkpoint is not whole.
        DamagedModelError: the index is damaged.
    """
    if checkpoint.file is not None:
        return {}, family_of_file(checkpoint)
    if BASE in options and INDEX_FILE not in checkpoint.listing:
        return {}, family_of_network(checkpoint)
    index = _index(checkpoint)
    return index, family_of(index, checkpoint.id)


def checkpoint_module(family: str) -> ModuleType:
    """The family's module ``checkpoint``, which opens its checkpoints."""
    return registry.module(family, "checkpoint")


def open_checkpoint(
    checkpoint: Checkpoint,
    index: Mapping[str, Any],
    family: str,
    options: Mapping[str, Any],
    before_fetch: BeforeFetch = do_nothing_before_fetch,
) -> OpenedCheckpoint:
    """Open a checkpoint by reading and comparing configurations and headers, but no weights.

    Args:
        checkpoint: what to open.
        index: its model_index.json.
        family: its family, as :func:`identify` returns it.
        options: the family's options, such as the source of a ``prior`` or a ``tiny_vae``.
        before_fetch: called with all files that are needed, before any large one is fetched.

    Raises:
        RequestError: the family doesn't take one of the options.
        ModelError: weights are missing or pickled, a class is unknown, or a configuration isn't
            computed here.
        DamagedModelError: a file of the checkpoint is damaged.
    """
    module = checkpoint_module(family)
    for name in options:
        if name not in module.OPTIONS:
            takes = ", ".join(map(_option, module.OPTIONS)) or "none"
            raise RequestError(f"{_option(name)} is not an option of {family} models; theirs: {takes}")
    opened: OpenedCheckpoint = module.open_published(PublishedCheckpoint(checkpoint, index, options, before_fetch))
    manifest = dataclasses.replace(opened.manifest, vocabulary=Settings.of(checkpoint).vocabulary)
    return dataclasses.replace(opened, manifest=manifest)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _index(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's model_index.json; without one, the error says what the files are."""
    if INDEX_FILE not in checkpoint.listing and (description := recognize(checkpoint)) is not None:
        raise ModelError(f"{checkpoint.id} has no {INDEX_FILE}: it is {description}")
    return checkpoint.read_json(INDEX_FILE)


def family_of(index: Mapping[str, Any], origin: str) -> str:
    """The family of the pipeline that a model_index.json names.

    Raises:
        ModelError: no family has this pipeline; the message names those that there are.
    """
    pipeline = index.get("_class_name")
    if pipeline is None:
        raise ModelError(f"{origin}: {INDEX_FILE} names no pipeline (_class_name), so what to draw with is unknown")
    if not isinstance(pipeline, str):
        raise ModelError(f"{origin}: {INDEX_FILE} asks for code of its own ({shown(pipeline)}); Vinograph runs none")
    known = {name: checkpoint_module(name).PIPELINES for name in registry.FAMILIES}
    for name, pipelines in known.items():
        if pipeline in pipelines:
            return name
    ours = "; ".join(f"{name} ({', '.join(pipelines)})" for name, pipelines in known.items())
    raise ModelError(f"{origin} is a {label(pipeline)}, which Vinograph doesn't open. It opens {ours}")
