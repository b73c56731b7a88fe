"""The Hugging Face hub: what a repository holds, and its files.

A repository is looked up once, by the name that the user gave. Everything that is then fetched is
of the commit that was found. The cache records it under the name, so that the same call finds the
same files where there is no network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub as hf
from huggingface_hub import constants
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
    hf_raise_for_status,
    tqdm,
)

from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.hub_cache import COMMIT, record_commit, repository_folder
from vinograph.models.hub_downloads import Downloads, RemoteFile
from vinograph.models.hub_errors import DEFAULT_REVISION, UnreachableError, explained
from vinograph.models.safetensors import LENGTH_SIZE, LONGEST_HEADER, parse_header

_TIMEOUT_PHASES = ("connect", "read", "write", "pool")  # of an HTTP request, each of which may wait
_BAR_SECONDS, _LOG_SECONDS = 0.1, 10.0  # between updates of a bar on a terminal, and in a log


@dataclass(frozen=True)
class Repository:
    """A repository at one commit: the names of its files, and the folder of the fetched ones."""

    id: str
    commit: str
    listing: frozenset[str]
    folder: Path


def look_up(repository: str, revision: str | None) -> Repository:
    """Ask the hub for a repository at a branch, a tag or a commit. No file is fetched.

    Raises:
        UnreachableError: the hub wasn't asked, or didn't answer.
        ModelError: there is no such repository or revision, or not for this user.
    """
    folder = repository_folder(repository, revision)
    with explained(repository, revision):
        info = hf.HfApi().model_info(repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        if not isinstance(info.sha, str) or COMMIT.fullmatch(info.sha) is None:
            raise UnreachableError("its answer names no commit")
        names = frozenset(each.rfilename for each in info.siblings or ())
        if not all(isinstance(name, str) for name in names):
            raise UnreachableError("its answer lists files without a name")
    record_commit(folder, revision or DEFAULT_REVISION, info.sha)
    return Repository(repository, info.sha, names, folder / "snapshots" / info.sha)


def fetch(repository: str, commit: str, names: Collection[str]) -> None:
    """Have the files ``names`` of a commit in the cache; a progress bar shows what is fetched.

    Raises:
        ModelError: the hub can't be reached, or refuses, or lacks one of them.
        ResourceError: the disk is full.
        RequestError: the cache can't be written.
    """
    folder = repository_folder(repository) / "snapshots" / commit
    missing = [name for name in sorted(names) if not (folder / name).is_file()]
    if not missing:
        return
    listed = remote_files(repository, commit)
    for name in missing:
        if name not in listed:
            raise ModelError(f"the hub lists {name} in {repository} at {commit}, but does not have it")
    files = {name: listed[name] for name in missing}
    with _progress_bar(files) as report:
        download(repository, commit, files, report)


def download(repository: str, commit: str, files: Mapping[str, RemoteFile], report: Callable[[int], None]) -> None:
    """Fetch ``files`` of a commit into the cache, and ``report`` how many bytes have arrived.

    An exception in the calling thread, such as Ctrl-C, ends it at once. Files that are whole by
    then stay.

    Raises:
        ModelError: the hub can't be reached, or refuses, or lacks one of them.
        ResourceError: the disk is full.
        RequestError: the cache can't be written.
    """
    downloads = Downloads(repository, commit, files)
    with _answering(repository, commit):
        downloads.run(report)


def remote_files(repository: str, commit: str) -> dict[str, RemoteFile]:
    """Every file of a repository at a commit. Only their list is fetched.

    Raises:
        ModelError: the hub can't be reached, or refuses.
    """
    with _answering(repository, commit):
        entries = hf.HfApi().list_repo_tree(repository, recursive=True, revision=commit)
        found = {each.path: _remote_file(each) for each in entries if isinstance(each, hf.hf_api.RepoFile)}
        if not all(_is_valid(each) for each in found.values()):
            raise UnreachableError("its answer lists files without a size or the name of their contents")
    return found


def _remote_file(entry: hf.hf_api.RepoFile) -> RemoteFile:
    return RemoteFile(entry.size, entry.blob_id if entry.lfs is None else entry.lfs.sha256)


def _is_valid(file: RemoteFile) -> bool:
    return type(file.size) is int and file.size >= 0 and isinstance(file.blob, str) and file.blob.isalnum()


def read_header(repository: str, commit: str, name: str) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file on the hub, as the entries of its tensors by name.

    No more than the header is fetched.

    Raises:
        UnreachableError: the hub can't be reached, or its answer breaks off.
        ModelError: the hub refuses.
        DamagedModelError: the file is no safetensors file, or its header is damaged.
    """
    url = hf.hf_hub_url(repository, name, revision=commit, endpoint=constants.ENDPOINT)
    headers = {**build_hf_headers(), "Range": f"bytes=0-{LENGTH_SIZE + LONGEST_HEADER - 1}"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    content, length = b"", None
    with (
        explained(repository, commit),
        get_session().stream("GET", url, headers=headers, timeout=timeout) as answer,
    ):
        hf_raise_for_status(answer)
        for chunk in answer.iter_bytes():
            content += chunk
            if length is None and len(content) >= LENGTH_SIZE:
                length = int.from_bytes(content[:LENGTH_SIZE], "little")
            if length is not None and len(content) >= LENGTH_SIZE + min(length, LONGEST_HEADER):
                break
    if length is None or length > LONGEST_HEADER or len(content) < LENGTH_SIZE + length:
        raise DamagedModelError(f"{name} in {repository} is no safetensors file, or its header is damaged")
    return parse_header(content[LENGTH_SIZE : LENGTH_SIZE + length], f"{name} in {repository}")


@contextmanager
def _progress_bar(files: Mapping[str, RemoteFile]) -> Iterator[Callable[[int], None]]:
    """Show one bar of the bytes of all files in the block, and yield what updates it.

    It is huggingface_hub's own, so it shows nothing where these bars are disabled.
    """
    total = sum(each.size for each in files.values())
    description = f"Fetching {len(files)} file{'s' if len(files) > 1 else ''}"
    interval = _BAR_SECONDS if sys.stderr.isatty() else _LOG_SECONDS
    bar: Any = tqdm  # which has no types
    with bar(total=total, desc=description, unit="B", unit_scale=True, mininterval=interval) as shown, quiet():
        yield lambda arrived: shown.update(arrived - shown.n)


@contextmanager
def quiet() -> Iterator[None]:
    """Have huggingface_hub show no progress bars, unless the environment wants them."""
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _answering(repository: str, commit: str) -> Iterator[None]:
    """Explain any failure in the block, of a hub that has answered before.

    Raises:
        ModelError: the hub doesn't answer any more. Otherwise as :func:`explained`.
    """
    try:
        with explained(repository, commit):
            _limit_waits()
            yield
    except UnreachableError as error:
        raise ModelError(f"the hub stopped answering while {repository} was fetched: {error}") from error


def _limit_waits() -> None:
    """Have no request of huggingface_hub's client wait without end."""
    client = get_session()
    hooks = client.event_hooks
    if _limit_wait not in hooks["request"]:
        client.event_hooks = {**hooks, "request": [*hooks["request"], _limit_wait]}


def _limit_wait(request: Any) -> None:
    """Set a request's timeouts where huggingface_hub sets none, as when it lists files."""
    timeouts = dict.fromkeys(_TIMEOUT_PHASES) | request.extensions.get("timeout", {})
    limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
    request.extensions["timeout"] = {phase: limit if wait is None else wait for phase, wait in timeouts.items()}
