"""The Hugging Face hub: what a repository holds, and fetching parts of it. Offline, its cache on this disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub as hf
from huggingface_hub import errors as hf_errors

from vinograph.convert.checkpoint import INDEX_FILE, Checkpoint, list_files
from vinograph.errors import ModelError

# What any of our families may need; a cache without even the index can't say which.
_PATTERNS = '"*.json" "*.txt" "*.model" "*.safetensors" "README.md" "LICENSE*"'


def locate(repository: str, revision: str | None) -> Checkpoint:
    """The repository as the hub has it now, or, where the hub can't be reached, as the cache has it.

    Raises:
        ModelError: it doesn't exist or isn't open to this user; or it is in neither place, naming what to run.
    """
    try:
        with _explained(repository, revision):
            info = hf.HfApi().model_info(repository, revision=revision)
    except _UnreachableError as error:
        return _cached(repository, revision, error)
    listing = frozenset(each.rfilename for each in info.siblings or ())
    with _explained(repository, revision):
        snapshot = hf.snapshot_download(repository, revision=info.sha, allow_patterns=[INDEX_FILE, "vinograph.json"])
    return Checkpoint(repository, Path(snapshot), listing, info.sha, is_hub=True, remote=True)


def download(repository: str, commit: str | None, names: Collection[str]) -> None:
    """Fetch ``names`` into the cache.

    Raises:
        ModelError: the hub can't be reached, or refuses.
    """
    try:
        with _explained(repository, commit):
            hf.snapshot_download(repository, revision=commit, allow_patterns=sorted(names))
    except _UnreachableError as error:
        raise ModelError(f"the hub stopped answering while {repository} was fetched: {error.__cause__}") from error


class _UnreachableError(Exception):
    """The hub was not asked (offline mode) or did not answer."""


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except hf_errors.GatedRepoError as error:
        raise ModelError(
            f"{repository} is gated: accept its terms on https://huggingface.co/{repository}, then hf auth login"
        ) from error
    except hf_errors.RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no {repository}, or not for this user (hf auth login)") from error
    except hf_errors.RevisionNotFoundError as error:
        raise ModelError(f"{repository} has no revision {revision}") from error
    except hf_errors.HFValidationError as error:
        raise ModelError(f"{repository} is not an id that the hub could have: {error}") from error
    except (hf_errors.OfflineModeIsEnabled, hf_errors.HfHubHTTPError, ConnectionError, OSError) as error:
        raise _UnreachableError from error
    except Exception as error:
        # The HTTP client's own exceptions (httpx or requests, by version) share no public base.
        if type(error).__module__.partition(".")[0] in (
            "httpx",
            "httpx2",
            "httpcore",
            "httpcore2",
            "requests",
            "urllib3",
        ):
            raise _UnreachableError from error
        raise


def _cached(repository: str, revision: str | None, reason: Exception) -> Checkpoint:
    try:
        snapshot = Path(hf.snapshot_download(repository, revision=revision, local_files_only=True))
    except (hf_errors.LocalEntryNotFoundError, OSError) as error:
        wanted = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"{repository} is not in this machine's cache, not even its {INDEX_FILE}, and the hub can't be reached "
            f"({reason.__cause__}). Online, fetch it with: hf download {repository}{wanted} --include {_PATTERNS}"
        ) from error
    return Checkpoint(repository, snapshot, list_files(snapshot), snapshot.name, is_hub=True)
