"""The Hugging Face hub and its cache on this disk: the one module that talks to it.

A repository is looked up once, by the name that the user gave. What is then fetched is of the commit that was found,
and the name is recorded in the cache, so that the same call finds the same files where there is no network.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub as hf
from huggingface_hub import constants
from huggingface_hub import errors as hf_errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from vinograph.errors import DamagedModelError, ModelError, RequestError, ResourceError
from vinograph.files import write_atomically
from vinograph.folders import NO_HOME
from vinograph.resources import Shortage, chain, explanation, shortage

DEFAULT_REVISION = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_LONGEST_REASON = 300


class UnreachableError(Exception):
    """The hub was not asked, did not answer, or not in a way that can be understood; the message says which."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit: the names of all its files, and the folder where those that were fetched are."""

    id: str
    commit: str
    listing: frozenset[str]
    folder: Path


def look_up(repository: str, revision: str | None) -> Repository:
    """Ask the hub for ``repository`` at ``revision``: a branch, a tag or a commit. Nothing of it is fetched.

    Raises:
        UnreachableError: the hub wasn't asked, or didn't answer.
        ModelError: there is no such repository or revision, or not for this user.
    """
    folder = _folder(repository, revision)
    with _explained(repository, revision):
        info = hf.HfApi().model_info(repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        if not isinstance(info.sha, str) or _COMMIT.fullmatch(info.sha) is None:
            raise UnreachableError("its answer names no commit")
        names = frozenset(each.rfilename for each in info.siblings or ())
        if not all(isinstance(name, str) for name in names):
            raise UnreachableError("its answer lists files without a name")
    _record(folder, revision or DEFAULT_REVISION, info.sha)
    return Repository(repository, info.sha, names, folder / "snapshots" / info.sha)


def fetch(repository: str, commit: str, names: Collection[str]) -> None:
    """Have the files ``names`` of a commit in the cache. Those that are there are not asked for.

    Raises:
        ModelError: the hub can't be reached, or refuses, or lacks one of them.
        ResourceError: the disk is full.
        RequestError: the cache can't be written.
    """
    folder = _folder(repository) / "snapshots" / commit
    missing = [name for name in sorted(names) if not (folder / name).is_file()]
    if not missing:
        return
    try:
        with _explained(repository, commit):
            patterns = [glob.escape(name) for name in missing]
            hf.snapshot_download(repository, revision=commit, allow_patterns=patterns)
    except UnreachableError as error:
        raise ModelError(f"the hub stopped answering while {repository} was fetched: {error}") from error
    for name in missing:
        if not (folder / name).is_file():
            raise ModelError(f"the hub lists {name} in {repository} at {commit}, but does not have it")


def tensor_names(repository: str, commit: str, name: str) -> frozenset[str]:
    """The names of the tensors in a safetensors file of a commit. Its header alone is fetched.

    Raises:
        ModelError: the hub can't be reached, or refuses.
        DamagedModelError: it is no such file.
    """
    found = None
    try:
        with _explained(repository, commit), suppress(hf_errors.SafetensorsParsingError):
            found = hf.HfApi().parse_safetensors_file_metadata(repository, name, revision=commit)
    except UnreachableError as error:
        raise ModelError(f"the hub stopped answering while {repository} was looked at: {error}") from error
    if found is None:
        raise DamagedModelError(f"{name} in {repository} is no safetensors file, or its header is damaged")
    return frozenset(found.tensors)


def cached(repository: str, revision: str | None) -> list[Path]:
    """The folder of ``repository`` at ``revision`` in the cache; its name is the commit.

    Where the cache has commits without the name of a branch, any of them may be the default branch: all are returned.

    Raises:
        ModelError: the id is none that the hub could have.
    """
    snapshots = _folder(repository, revision) / "snapshots"
    commit = revision if revision and _COMMIT.fullmatch(revision) else _recorded(repository, revision)
    if commit is not None and (snapshots / commit).is_dir():
        return [snapshots / commit]
    if revision is not None or not snapshots.is_dir():
        return []
    return sorted(each for each in snapshots.iterdir() if each.is_dir())


def _folder(repository: str, revision: str | None = None) -> Path:
    """The folder of a repository in the cache, whose layout huggingface_hub documents."""
    with _explained(repository, revision):
        validate_repo_id(repository)
    if revision is not None and (".." in revision or revision.startswith("/")):  # neither is in a name that git allows
        raise ModelError(f"{repository} has no revision {revision[:_LONGEST_REASON]!r}, nor could it have")
    place = Path(constants.HF_HUB_CACHE)
    if place.is_relative_to(NO_HOME) or str(place).startswith("~"):  # where huggingface_hub itself found no home
        raise RequestError(
            f"{repository} would be in the hub's cache in this user's home, but there is none: set HF_HOME to a folder"
        )
    return place / "--".join(["models", *repository.split("/")])


def _recorded(repository: str, revision: str | None) -> str | None:
    """The commit that a branch or tag was when it was last looked up."""
    file = _folder(repository) / "refs" / (revision or DEFAULT_REVISION)
    try:
        commit = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # not there, no text, or no name that a file can have
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _record(folder: Path, revision: str, commit: str) -> None:
    """Write what :func:`_recorded` reads, as huggingface_hub does where it downloads by name."""
    file = folder / "refs" / revision
    if revision == commit:
        return
    with suppress(OSError, ValueError):  # a cache that can't be written is complained of when a file is fetched
        if not file.is_file() or file.read_bytes() != commit.encode():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, commit.encode())


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Say what any failure of huggingface_hub in the block means.

    Raises:
        UnreachableError: the network or the hub failed, or what it answers makes no sense.
        ModelError: the hub answered that it has no such thing for this user.
        ResourceError: the disk is full.
        RequestError: the cache can't be written, or the id is none.
    """
    try:
        yield
    except (UnreachableError, MemoryError):
        raise
    except Exception as error:
        raise _meaning(error, repository, revision) from error


def _meaning(error: Exception, repository: str, revision: str | None) -> Exception:
    if shortage(error) is Shortage.DISK:
        return ResourceError(
            f"the disk is full: the hub's cache, {constants.HF_HUB_CACHE}, has no room for {repository}"
        )
    if (short := explanation(error)) is not None:
        return ResourceError(short)
    refusal = _refusal(error, repository, revision)
    if refusal is not None:
        return refusal
    for each in chain(error, suppressed=True):
        if isinstance(each, OSError) and isinstance(each.filename, (str, Path)) and _is_of_cache(Path(each.filename)):
            return RequestError(
                f"the hub's cache can't be used: {each.filename}: {each.strerror or each}. "
                "Set HF_HOME to a folder that can be written"
            )
    return UnreachableError(_reason(error))


def _refusal(error: Exception, repository: str, revision: str | None) -> ModelError | None:
    """What the hub's own answer means, where it is about the repository."""
    status = _status(error)
    if isinstance(error, hf_errors.GatedRepoError):
        return ModelError(
            f"{repository} is gated: accept its terms on https://huggingface.co/{repository}, then hf auth login"
        )
    if isinstance(error, hf_errors.RepositoryNotFoundError):
        return ModelError(f"the hub has no {repository}, or not for this user (hf auth login)")
    if isinstance(error, hf_errors.RevisionNotFoundError):
        return ModelError(f"{repository} has no revision {revision or DEFAULT_REVISION}")
    if isinstance(error, hf_errors.HFValidationError):
        return ModelError(f"{repository} is not an id that the hub could have: {error}")
    if status in (401, 403):
        return ModelError(f"the hub does not let this user read {repository} (HTTP status {status}): hf auth login")
    if status == 404:
        return ModelError(f"the hub does not have what was asked for of {repository} (HTTP status 404)")
    return None


def _reason(error: Exception) -> str:
    """Why the hub could not be asked; never empty."""
    status = _status(error)
    if isinstance(error, hf_errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, ImportError) and "socks" in str(error).lower():
        return "the proxy that ALL_PROXY or HTTPS_PROXY names speaks SOCKS: pip install socksio"
    if status == 429:
        return "it has had too many requests from here (HTTP status 429): try again later, or hf auth login"
    if status is not None:
        return f"it answered with HTTP status {status}"
    errors = list(chain(error, suppressed=True))
    said = [f"{type(each).__name__}: {' '.join(str(each).split())[:_LONGEST_REASON]}" for each in errors if str(each)]
    first = said[-1] if said else type(error).__name__  # what the others came of
    if any(isinstance(each, OSError) or type(each).__module__.partition(".")[0] in _CLIENTS for each in errors):
        return first
    return f"its answer makes no sense: {first}"


def _status(error: Exception) -> int | None:
    """The HTTP status of the answer that an exception, or one that led to it, is about."""
    found = (getattr(getattr(each, "response", None), "status_code", None) for each in chain(error, suppressed=True))
    return next((status for status in found if isinstance(status, int)), None)


def _is_of_cache(path: Path) -> bool:
    """Whether a path lies in the cache, or where the user's token is, or either of these in it."""
    homes = (Path(each).absolute() for each in (constants.HF_HUB_CACHE, constants.HF_HOME))
    return any(path.absolute().is_relative_to(home) or home.is_relative_to(path.absolute()) for home in homes)
