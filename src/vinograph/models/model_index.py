"""The model_index.json of a checkpoint: its pipeline, and the library and class of each component.

Classes are names here that are compared with a table of ours; no code of theirs is imported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any

from vinograph.errors import ModelError
from vinograph.models.checkpoint import INDEX_FILE, Subfolder
from vinograph.schema import label
from vinograph.values import shown


def require_parts(index: Mapping[str, Any], parts: Collection[str], origin: str) -> None:
    """Check that a model_index.json names each of ``parts``.

    Raises:
        ModelError: it doesn't name one; the message says which.
    """
    for part in parts:
        if index.get(part) in (None, [None, None], []):
            raise ModelError(f"{origin}: {INDEX_FILE} names no {part}, without which Vinograph can't draw")


def check_classes(index: Mapping[str, Any], known: Mapping[str, Collection[tuple[str, str]]], origin: str) -> None:
    """Check that Vinograph has the networks of all classes that a model_index.json names.

    Args:
        index: the file's contents.
        known: for each part, the pairs of library and class that Vinograph has.
        origin: names the checkpoint in errors.

    Raises:
        ModelError: a part has another library or class; the message names the first.
    """
    for part, entry in index.items():
        if part in known and not isinstance(entry, list | NoneType):
            raise ModelError(f"{origin}: {INDEX_FILE} gives the part {part} {shown(entry)}, not a library and a class")
        if not isinstance(entry, list) or part.startswith("_"):
            continue
        pair = tuple(entry)
        if pair in ((None, None), ()):
            continue
        if pair not in list(known.get(part, ())):  # a list's lookup, as the file may hold what can't be hashed
            named = " of ".join(label(each) for each in reversed(pair[:2]))
            expected = ", ".join(sorted({name for _, name in known.get(part, ())})) or "no such part"
            raise ModelError(
                f"{origin}: {INDEX_FILE} gives the part {label(part)} the class {named}, which Vinograph doesn't know "
                f"(known here: {expected}). It runs no code from checkpoints"
            )


def scheduler_config(subfolder: Subfolder, index: Mapping[str, Any], part: str = "scheduler") -> dict[str, Any]:
    """A scheduler's configuration, with the class that the model_index.json names for ``part``.

    diffusers, too, makes that class from the settings in the scheduler's file, whatever class wrote
    them.

    Raises:
        ModelError: the configuration is missing.
        DamagedModelError: it is not a JSON object.
    """
    config = subfolder.config("scheduler_config.json")
    config.pop("class", None)  # the key of our own manifests, which no published file has
    return {**config, "_class_name": index[part][1]}
