"""huggingface_hub's cache on this disk, in the layout that it documents.

A repository's folder has ``snapshots/COMMIT`` with the files of a commit, which are links into
``blobs``, and ``refs/REVISION`` with the commit that a branch or tag was when it was last looked
up.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from vinograph.errors import ModelError, RequestError
from vinograph.files import write_atomically
from vinograph.folders import NO_HOME
from vinograph.models.hub_errors import DEFAULT_REVISION, LONGEST_REASON, explained

COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder() -> Path:
    """The cache's folder."""
    return Path(constants.HF_HUB_CACHE)


def repository_folder(repository: str, revision: str | None = None) -> Path:
    """The folder of a repository in the cache.

    Raises:
        ModelError: the id or the revision is not one that the hub could have.
        RequestError: the cache would lie in the user's home, and there is none.
    """
    with explained(repository, revision):
        validate_repo_id(repository)
    if revision is not None and (".." in revision or revision.startswith("/")):  # git allows neither in a name
        raise ModelError(f"{repository} has no revision {revision[:LONGEST_REASON]!r}, nor could it have")
    cache = cache_folder()
    if cache.is_relative_to(NO_HOME) or str(cache).startswith("~"):  # "~" stays where huggingface_hub found no home
        raise RequestError(
            f"{repository} would be in the hub's cache in this user's home, but there is none: set HF_HOME to a folder"
        )
    return cache / "--".join(["models", *repository.split("/")])


def cached_snapshots(repository: str, revision: str | None) -> list[Path]:
    """The folder of ``repository`` at ``revision`` in the cache, named by its commit.

    Where no revision is given and none recorded, any commit may be the default branch: all are
    returned.

    Raises:
        ModelError: the id is not one that the hub could have.
    """
    snapshots = repository_folder(repository, revision) / "snapshots"
    commit = revision if revision and COMMIT.fullmatch(revision) else _recorded_commit(repository, revision)
    if commit is not None and (snapshots / commit).is_dir():
        return [snapshots / commit]
    if revision is not None or not snapshots.is_dir():
        return []
    return sorted(each for each in snapshots.iterdir() if each.is_dir())


def _recorded_commit(repository: str, revision: str | None) -> str | None:
    """The commit that a branch or tag was when it was last looked up."""
    file = repository_folder(repository) / "refs" / (revision or DEFAULT_REVISION)
    try:
        commit = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # it is not there, is no text, or has a name that no file can have
        return None
    return commit if COMMIT.fullmatch(commit) else None


def record_commit(folder: Path, revision: str, commit: str) -> None:
    """Record in a repository's folder which commit a branch or tag is, as huggingface_hub does."""
    file = folder / "refs" / revision
    if revision == commit:
        return
    with suppress(OSError, ValueError):  # fetching a file reports a cache that can't be written
        if not file.is_file() or file.read_bytes() != commit.encode():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, commit.encode())
