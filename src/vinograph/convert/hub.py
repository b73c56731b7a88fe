"""Checkpoints of the Hugging Face hub, or of its cache on this disk where the hub can't be reached."""

from __future__ import annotations

from collections.abc import Collection

from vinograph import hub
from vinograph.convert.checkpoint import INDEX_FILE, Checkpoint, list_files
from vinograph.errors import ModelError

# What any of our families may need; a cache without even the index can't say which.
_PATTERNS = '"*.json" "*.txt" "*.model" "*.safetensors" "README.md" "LICENSE*"'
_FIRST = {INDEX_FILE, "vinograph.json"}


def locate(repository: str, revision: str | None) -> Checkpoint:
    """The repository as the hub has it now, or, where the hub can't be reached, as the cache has it.

    Raises:
        ModelError: it doesn't exist or isn't open to this user; or it is in neither place, naming what to run.
        ResourceError: the disk is full.
        RequestError: the hub's cache can't be written.
    """
    try:
        found = hub.look_up(repository, revision)
    except hub.UnreachableError as error:
        return _cached(repository, revision, error)
    hub.fetch(repository, found.commit, _FIRST & found.listing)
    return Checkpoint(repository, found.folder, found.listing, found.commit, is_hub=True, remote=True)


def download(repository: str, commit: str | None, names: Collection[str]) -> None:
    """Fetch ``names`` into the cache.

    Raises:
        ModelError: the hub can't be reached, or refuses.
        ResourceError: the disk is full.
        RequestError: the hub's cache can't be written.
    """
    assert commit is not None, "a repository of the hub has one"
    hub.fetch(repository, commit, names)


def _cached(repository: str, revision: str | None, reason: hub.UnreachableError) -> Checkpoint:
    found = hub.cached(repository, revision)
    if len(found) > 1:
        commits = ", ".join(each.name for each in found)
        raise ModelError(
            f"the hub can't be reached ({reason}), and its cache has several commits of {repository}: "
            f"name one with --revision: {commits}"
        ) from reason
    if not found:
        wanted = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"{repository} is not in this machine's cache, not even its {INDEX_FILE}, and the hub can't be reached "
            f"({reason}). Online, fetch it with: hf download {repository}{wanted} --include {_PATTERNS}"
        ) from reason
    return Checkpoint(repository, found[0], list_files(found[0]), found[0].name, is_hub=True)
