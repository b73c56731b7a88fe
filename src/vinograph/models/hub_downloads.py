"""Downloads of several files at once, in threads that an interrupt need not wait for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub as hf

from vinograph.models.hub_cache import repository_folder

_MAX_THREADS = 8  # files that are fetched at once, as huggingface_hub does by default
_GRACE_SECONDS = 5.0  # in which other files may become whole after one has failed
_POLL_SECONDS = 0.2  # after which it is looked how much has arrived


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and the name of its contents in the cache."""

    size: int
    blob: str


class Downloads:
    """Fetches files of a commit into the cache, in daemon threads that no exit waits for."""

    def __init__(self, repository: str, commit: str, files: Mapping[str, RemoteFile]) -> None:
        self._repository, self._commit, self._files = repository, commit, files
        self._folder = repository_folder(repository)
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._stale = self._abandoned()

    def run(self, report: Callable[[int], None]) -> None:
        """Fetch all files, reporting the bytes that have arrived. Raises the first failure."""
        for name in sorted(self._files):
            self._waiting.put(name)
        count = min(_MAX_THREADS, len(self._files))
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            remaining = len(self._files)
            while remaining:
                with suppress(queue.Empty):
                    if (error := self._ended.get(timeout=_POLL_SECONDS)) is not None:
                        raise error
                    remaining -= 1
                report(self._arrived())
        except BaseException as error:
            self._stopped.set()
            if isinstance(error, Exception):  # after an interrupt the user waits for nothing
                _join(threads)
            _delete(self._abandoned() - self._stale)
            raise
        _delete(self._stale)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                name = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                hf.hf_hub_download(self._repository, name, revision=self._commit)
            except BaseException as error:  # run() raises it again
                self._ended.put(error)
            else:
                self._ended.put(None)

    def _arrived(self) -> int:
        """Bytes in the cache, with those of files that are not whole yet."""
        snapshot = self._folder / "snapshots" / self._commit
        whole = {name for name in self._files if (snapshot / name).is_file()}
        arrived = sum(self._files[name].size for name in whole)
        incomplete = self._incomplete() - self._stale
        for name in self._files.keys() - whole:
            sizes = [_size(path) for path in incomplete if path.name.startswith(self._files[name].blob)]
            arrived += min(max(sizes, default=0), self._files[name].size)
        return arrived

    def _incomplete(self) -> set[Path]:
        """The files <blob>.incomplete, which huggingface_hub writes to until they are whole."""
        blobs = tuple(each.blob for each in self._files.values())
        return {path for path in (self._folder / "blobs").glob("*.incomplete") if path.name.startswith(blobs)}

    def _abandoned(self) -> set[Path]:
        """Those named <blob>.<try>.incomplete, which no later try takes up.

        A try that was killed leaves them behind. huggingface_hub locks a file while it fetches it,
        so once the file is whole, no other process needs them.
        """
        return {path for path in self._incomplete() if "." in path.stem}


def _join(threads: Collection[threading.Thread]) -> None:
    """Give threads a while to end."""
    limit = time.monotonic() + _GRACE_SECONDS
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
