"""The Hugging Face hub and its cache on this disk: the one module that talks to it.

A repository is looked up once, by the name that the user gave. What is then fetched is of the commit that was found,
and the name is recorded in the cache, so that the same call finds the same files where there is no network.
"""

from __future__ import annotations

import glob
import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub as hf
from huggingface_hub import constants
from huggingface_hub import errors as hf_errors
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
    hf_raise_for_status,
    validate_repo_id,
)

from vinograph.errors import DamagedModelError, ModelError, RequestError, ResourceError
from vinograph.files import write_atomically
from vinograph.folders import NO_HOME
from vinograph.resources import Shortage, chain, explanation, shortage

DEFAULT_REVISION = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_LONGEST_REASON = 300
_PHASES = ("connect", "read", "write", "pool")  # of a request, each of which may wait
_AT_ONCE = 8  # files that are fetched at once, as huggingface_hub does by default
_JOINED = 5.0  # seconds in which other files may become whole after one has failed
_POLLED = 0.2  # seconds after which is looked how much has arrived
_LENGTH = 8  # bytes of the header's length, at the start of a safetensors file
_LONGEST_HEADER = 4_000_000  # bytes: ten times what the largest published models have


class UnreachableError(Exception):
    """The hub was not asked, did not answer, or not in a way that can be understood; the message says which."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit: the names of all its files, and the folder where those that were fetched are."""

    id: str
    commit: str
    listing: frozenset[str]
    folder: Path


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: how many bytes it has, and the name of its contents in the cache."""

    size: int
    blob: str


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
    with _answering(repository, commit):
        patterns = [glob.escape(name) for name in missing]
        hf.snapshot_download(repository, revision=commit, allow_patterns=patterns)
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
            _limit_waits()
            found = hf.HfApi().parse_safetensors_file_metadata(repository, name, revision=commit)
    except UnreachableError as error:
        raise ModelError(f"the hub stopped answering while {repository} was looked at: {error}") from error
    if found is None:
        raise DamagedModelError(f"{name} in {repository} is no safetensors file, or its header is damaged")
    return frozenset(found.tensors)


def files_of(repository: str, commit: str) -> dict[str, RemoteFile]:
    """Every file of a repository at a commit. Nothing is fetched but their list.

    Raises:
        ModelError: the hub can't be reached, or refuses.
    """
    with _answering(repository, commit):
        entries = hf.HfApi().list_repo_tree(repository, recursive=True, revision=commit)
        found = {each.path: _remote_file(each) for each in entries if isinstance(each, hf.hf_api.RepoFile)}
        if not all(_is_plain(each) for each in found.values()):
            raise UnreachableError("its answer lists files without a size or the name of their contents")
    return found


def _remote_file(entry: hf.hf_api.RepoFile) -> RemoteFile:
    return RemoteFile(entry.size, entry.blob_id if entry.lfs is None else entry.lfs.sha256)


def _is_plain(file: RemoteFile) -> bool:
    return type(file.size) is int and file.size >= 0 and isinstance(file.blob, str) and file.blob.isalnum()


def read_header(repository: str, commit: str, name: str) -> bytes | None:
    """The header of a safetensors file on the hub, of which no more than that is fetched.

    None where it is very long, or breaks off: it is asked for an estimate, which is worth no second try.

    Raises:
        ModelError: the hub refuses.
    """
    url = hf.hf_hub_url(repository, name, revision=commit, endpoint=constants.ENDPOINT)
    headers = {**build_hf_headers(), "Range": f"bytes=0-{_LONGEST_HEADER - 1}"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    read = b""
    with (
        suppress(UnreachableError),
        _explained(repository, commit),
        get_session().stream("GET", url, headers=headers, timeout=timeout) as answer,
    ):
        hf_raise_for_status(answer)
        for chunk in answer.iter_bytes():
            read += chunk
            end = _LENGTH + int.from_bytes(read[:_LENGTH], "little")
            if len(read) >= min(end, _LONGEST_HEADER):
                return read[_LENGTH:end] if end <= _LONGEST_HEADER else None
    return None


def download(repository: str, commit: str, files: Mapping[str, RemoteFile], report: Callable[[int], None]) -> None:
    """Have ``files`` of a commit in the cache, as :func:`fetch` does, and ``report`` how many bytes have arrived.

    An exception in the calling thread, such as Ctrl-C, ends it at once. What was whole by then stays.

    Raises:
        ModelError: the hub can't be reached, or refuses, or lacks one of them.
        ResourceError: the disk is full.
        RequestError: the cache can't be written.
    """
    downloads = _Downloads(repository, commit, files)
    with _answering(repository, commit):
        downloads.run(report)


class _Downloads:
    """The fetching of several files, each in a thread that the process does not wait for when it ends."""

    def __init__(self, repository: str, commit: str, files: Mapping[str, RemoteFile]) -> None:
        self._repository, self._commit, self._files = repository, commit, files
        self._folder = _folder(repository)
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._left_over = self._of_one_try()

    def run(self, report: Callable[[int], None]) -> None:
        """Fetch them all; raises what the first that fails raises."""
        for name in sorted(self._files):
            self._waiting.put(name)
        count = min(_AT_ONCE, len(self._files))
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            left = len(self._files)
            while left:
                with suppress(queue.Empty):
                    if (error := self._ended.get(timeout=_POLLED)) is not None:
                        raise error
                    left -= 1
                report(self._arrived())
        except BaseException as error:
            self._stopped.set()
            if isinstance(error, Exception):  # not where a user has said to stop
                _join(threads)
            _delete(self._of_one_try() - self._left_over)
            raise
        _delete(self._left_over)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                name = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                hf.hf_hub_download(self._repository, name, revision=self._commit)
            except BaseException as error:  # raised again by who waits for it
                self._ended.put(error)
            else:
                self._ended.put(None)

    def _arrived(self) -> int:
        """Bytes that are in the cache, those of files that are not whole yet included."""
        snapshot = self._folder / "snapshots" / self._commit
        whole = {name for name in self._files if (snapshot / name).is_file()}
        arrived = sum(self._files[name].size for name in whole)
        unfinished = self._unfinished() - self._left_over
        for name in self._files.keys() - whole:
            sizes = [_size(path) for path in unfinished if path.name.startswith(self._files[name].blob)]
            arrived += min(max(sizes, default=0), self._files[name].size)
        return arrived

    def _unfinished(self) -> set[Path]:
        """What huggingface_hub has begun to fetch of these files: <contents>.incomplete."""
        blobs = tuple(each.blob for each in self._files.values())
        return {path for path in (self._folder / "blobs").glob("*.incomplete") if path.name.startswith(blobs)}

    def _of_one_try(self) -> set[Path]:
        """That part of it which nobody takes up again, since its name is of one try: <contents>.<try>.incomplete.

        Those of a try that was killed are left over. Each file is locked while it is fetched, so that whoever has
        fetched it knows that no other process needs them.
        """
        return {path for path in self._unfinished() if "." in path.stem}


def _join(threads: Collection[threading.Thread]) -> None:
    """Give threads a while to end."""
    limit = time.monotonic() + _JOINED
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0, limit - time.monotonic()))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it has just become whole
        return 0


def _delete(paths: Collection[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


@contextmanager
def quiet() -> Iterator[None]:
    """Have huggingface_hub show no progress of its own in the block, unless the environment asks for it."""
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


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


def address(repository: str) -> str:
    """The page of a repository, where its licence can be read and its terms accepted."""
    return f"{constants.ENDPOINT}/{repository}"


def cache_folder() -> Path:
    """The cache's folder."""
    return Path(constants.HF_HUB_CACHE)


def _folder(repository: str, revision: str | None = None) -> Path:
    """The folder of a repository in the cache, whose layout huggingface_hub documents."""
    with _explained(repository, revision):
        validate_repo_id(repository)
    if revision is not None and (".." in revision or revision.startswith("/")):  # neither is in a name that git allows
        raise ModelError(f"{repository} has no revision {revision[:_LONGEST_REASON]!r}, nor could it have")
    place = cache_folder()
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
def _answering(repository: str, commit: str) -> Iterator[None]:
    """Say what any failure in the block means, of a hub that has answered before.

    Raises:
        ModelError: it doesn't answer any more. Otherwise as :func:`_explained`.
    """
    try:
        with _explained(repository, commit):
            _limit_waits()
            yield
    except UnreachableError as error:
        raise ModelError(f"the hub stopped answering while {repository} was fetched: {error}") from error


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


def _limit_waits() -> None:
    """Have no request of huggingface_hub's client wait without end."""
    client = get_session()
    hooks = client.event_hooks
    if _limit_wait not in hooks["request"]:
        client.event_hooks = {**hooks, "request": [*hooks["request"], _limit_wait]}


def _limit_wait(request: Any) -> None:
    """Limit how long a request waits where huggingface_hub doesn't, as when it lists a repository's files."""
    waits = dict.fromkeys(_PHASES) | request.extensions.get("timeout", {})
    limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
    request.extensions["timeout"] = {phase: limit if wait is None else wait for phase, wait in waits.items()}


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
        return ModelError(f"{repository} is gated: accept its terms on {address(repository)}, then hf auth login")
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
