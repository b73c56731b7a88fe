"""One file of a hub repository, named as ``owner/name/file.safetensors``, also within folders."""

from __future__ import annotations

import re
from pathlib import Path

from vinograph.errors import ModelError
from vinograph.models.checkpoint import Checkpoint, from_repository, in_cache
from vinograph.models.model_card import CARD_FILE

# The id's limits are the hub's. A part of dots alone would lead out of the repository.
_NAME = re.compile(
    r"([A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96})/((?:(?!\.+/)[^/\\:\0]+/){0,8}[^/\\:\0]+\.safetensors)", re.ASCII
)
_LONGEST = 500
_BESIDE = (CARD_FILE, "LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE")


def split(reference: str) -> tuple[str, str] | None:
    """The repository and the file that ``reference`` names; None if it names no file of the hub."""
    match = _NAME.fullmatch(reference) if len(reference) <= _LONGEST else None
    return None if match is None else (match[1], match[2])


def locate_file(repository: str, file: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint that is one file of a repository. The file is fetched when it is read.

    Raises:
        ModelError: the hub has no such repository, revision or file, or can't be reached while the
            file isn't in its cache.
        ResourceError: the disk is full.
        RequestError: the hub's cache can't be written.
    """
    found = _located(repository, file, revision)
    if not (found.directory / file).is_file():  # the listing of a cache may lack what is in a folder of a folder
        found.require([file])
    return Checkpoint(
        f"{found.id}/{file}",
        found.directory,
        frozenset({file, *(name for name in _BESIDE if name in found.listing)}),
        found.revision,
        is_hub=True,
        remote=found.remote,
        file=file,
    )


def _located(repository: str, file: str, revision: str | None) -> Checkpoint:
    from vinograph.models import hub
    from vinograph.models.hub_cache import cached_snapshots
    from vinograph.models.hub_errors import UnreachableError

    try:
        return from_repository(hub.look_up(repository, revision))
    except UnreachableError as error:
        if cached_snapshots(repository, revision):
            return in_cache(repository, revision, error)
        option = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"{repository}/{file} is not in this machine's cache, and the hub can't be reached ({error}). Online, "
            f'fetch it with: hf download {repository} "{file}"{option}'
        ) from error


def fetched(reference: str) -> Path | None:
    """The file that ``reference`` names, fetched from the hub; None if it names no file of the hub.

    Raises what :func:`locate_file` does.
    """
    named = split(reference)
    if named is None:
        return None
    checkpoint = locate_file(*named)
    checkpoint.fetch([named[1]])
    return checkpoint.path
