"""Writes a bundle's directory atomically, and resumes interrupted work."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock, Timeout

from vinograph import strict_json
from vinograph.errors import RequestError
from vinograph.files import hidden_sibling, is_full, write_atomically
from vinograph.models.bundle import Bundle, called, sha256_of
from vinograph.models.manifest import CHECKSUM, MANIFEST_FILE, FileRecord, Manifest, checksum

_PROGRESS_FILE = "progress.json"


class BundleWriter:
    """Writes a bundle; a killed conversion leaves nothing that loads, and can be resumed.

    Files go into the hidden sibling ``.NAME.partial``. A step is done once :meth:`mark_done` has
    recorded it, as long as its files keep their sizes. The sources of a step are deleted only after
    that. A step's files are hashed in a thread while the next step is written. :meth:`finish`
    writes the manifest with all hashes, and renames the directory into place.

    Args:
        target: the directory of the bundle.
        fingerprint: identifies the conversion and its options; a partial directory with another
            fingerprint is discarded.
        overwrite: whether to replace an existing bundle.

    Raises:
        RequestError: the target exists and ``overwrite`` is false, another conversion is writing
            it, or it can't be written.
    """

    def __init__(self, target: Path, fingerprint: str, overwrite: bool = False) -> None:
        self.target = Path(os.path.realpath(target))
        self.partial = hidden_sibling(self.target, ".partial")
        self._replaced = hidden_sibling(self.target, ".replaced")
        self._fingerprint = fingerprint
        self._overwrite = overwrite
        self._lock = FileLock(hidden_sibling(self.target, ".lock"))
        self._done: dict[str, _DoneStep] = {}
        self._hashes = _Hashes()
        self._recording = threading.Lock()

    def __enter__(self) -> BundleWriter:
        """Take the lock, and resume an interrupted conversion if there is one."""
        check_target(self.target, self._overwrite)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._resume_or_start()
        except BaseException:
            self._release_lock()
            raise
        return self

    def _take_lock(self) -> None:
        lock = Path(self._lock.lock_file)
        try:
            lock.touch()  # filelock would report a read-only folder as locked
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RequestError(
                f"another conversion is writing {self.target} now: wait for it, or name another place"
            ) from error
        except OSError as error:
            if is_full(error):
                raise
            raise RequestError(
                f"{self.target} can't be written: {error.strerror or error}; name another place"
            ) from error

    def _resume_or_start(self) -> None:
        """Restore a bundle whose replacement was killed, and discard what can't be resumed."""
        if not self.target.exists() and (self._replaced / MANIFEST_FILE).is_file():
            self._replaced.rename(self.target)  # killed between the two renames of finish()
        self._discard_replaced()
        check_target(self.target, self._overwrite)
        self._done = self._read_progress()
        if not self._done:
            if self.partial.exists():
                shutil.rmtree(self.partial)
            self.partial.mkdir()
            self._write_progress()
        for unfinished in self.partial.glob(".*.tmp"):  # left by a killed conversion
            unfinished.unlink()

    def _discard_replaced(self) -> None:
        """Delete the old bundle, its manifest first, so that half of it is never restored."""
        if self._replaced.is_dir():
            (self._replaced / MANIFEST_FILE).unlink(missing_ok=True)
            shutil.rmtree(self._replaced)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Release the lock. Finished steps are saved for the next try, unless the disk was full."""
        self._hashes.stop()
        if isinstance(error, OSError) and is_full(error):
            shutil.rmtree(self.partial, ignore_errors=True)
        self._release_lock()

    def _release_lock(self) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def done(self, step: str) -> Any | None:
        """The record of a step that this or an interrupted conversion finished, else None.

        A step is not done if its files are missing or have changed their sizes.
        """
        recorded = self._done.get(step)
        return None if recorded is None or recorded.sizes != self._sizes(recorded.sizes) else recorded.record

    def is_whole(self, file: Path) -> bool:
        """Whether ``file`` belongs to a finished step, and still has its size."""
        name = file.relative_to(self.partial).as_posix()
        size = self._sizes([name]).get(name)
        return size is not None and any(step.sizes.get(name) == size for step in self._done.values())

    def mark_done(
        self, step: str, record: Any, files: Iterable[Path] = (), hashes: Mapping[Path, str] = MappingProxyType({})
    ) -> None:
        """Record that ``step`` is done, with its JSON record and the files that it wrote.

        The files are in the partial directory, and are flushed to the disk before the record is
        written. ``hashes`` holds the SHA-256 of files that were hashed while they were written.
        Several threads may call this.
        """
        names = [file.relative_to(self.partial).as_posix() for file in files]
        for name in names:
            _flush(self.partial / name)
        with self._recording:
            self._done[step] = _DoneStep(record, self._sizes(names))
            self._write_progress()
            for name in names:
                file = self.partial / name
                if (digest := hashes.get(file)) is not None:
                    self._hashes.add(file, digest)
                else:
                    self._hashes.start(file)

    def forget(self, steps: Iterable[str]) -> None:
        """Record that ``steps`` are no longer done, before their sources are created again."""
        for step in steps:
            self._done.pop(step, None)
        self._write_progress()

    def keep_only(self, names: Collection[str]) -> None:
        """Delete all files but ``names``: a killed conversion may have left others."""
        for file in sorted(self.partial.rglob("*"), reverse=True):  # a folder comes after its files
            name = file.relative_to(self.partial).as_posix()
            if file.is_dir():
                if not any(file.iterdir()):
                    file.rmdir()
            elif name not in names and name != _PROGRESS_FILE:
                file.unlink()

    def finish(self, manifest: Manifest) -> Bundle:
        """Write the manifest, and move the bundle into the place of an old one.

        The model is called as the bundle's directory is.
        """
        files = {name: self._record(name) for name in self._names()}
        complete = dataclasses.replace(called(manifest, self.target.absolute().name), files=files)
        complete.check_before_writing(f"its {MANIFEST_FILE}")
        for name in files:
            _flush(self.partial / name)
        for folder in sorted({(self.partial / name).parent for name in files} - {self.partial}):
            _flush(folder)
        # If killed after this, a conversion starts afresh: a directory with a manifest can't be
        # resumed.
        (self.partial / _PROGRESS_FILE).unlink()
        write_atomically(self.partial / MANIFEST_FILE, complete.to_json().encode(), flush=True)
        _flush(self.partial)
        if self.target.exists():
            self.target.rename(self._replaced)
        self.partial.rename(self.target)
        _flush(self.target.parent)
        self._discard_replaced()
        return Bundle.open(self.target)

    def _names(self) -> list[str]:
        """Sorted names of the bundle's files, without its manifest."""
        names = (p.relative_to(self.partial).as_posix() for p in self.partial.rglob("*") if p.is_file())
        return sorted(name for name in names if name not in (MANIFEST_FILE, _PROGRESS_FILE))

    def _record(self, name: str) -> FileRecord:
        file = self.partial / name
        return FileRecord(file.stat().st_size, self._hashes.of(file))

    def _sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Sizes of the files that exist, by name."""
        files = {name: self.partial / name for name in names}
        return {name: file.stat().st_size for name, file in files.items() if file.is_file()}

    def _read_progress(self) -> dict[str, _DoneStep]:
        try:
            progress = strict_json.read_object(self.partial / _PROGRESS_FILE)
        except (OSError, ValueError):
            return {}
        if progress.pop(CHECKSUM, None) != checksum(progress) or progress.get("fingerprint") != self._fingerprint:
            return {}
        return {step: _DoneStep(**entry) for step, entry in progress["done"].items()}

    def _write_progress(self) -> None:
        done = {step: dataclasses.asdict(entry) for step, entry in self._done.items()}
        progress = {"fingerprint": self._fingerprint, "done": done}
        text = json.dumps({**progress, CHECKSUM: checksum(progress)})
        write_atomically(self.partial / _PROGRESS_FILE, text.encode(), flush=True)


@dataclass(frozen=True)
class _DoneStep:
    """A finished step: its record, and the sizes of its files by name."""

    record: Any
    sizes: Mapping[str, int]


def check_target(target: Path, overwrite: bool) -> None:
    """Check that ``target`` doesn't exist, or is a bundle that may be overwritten.

    Raises:
        RequestError: ``target`` is not a bundle, or must not be overwritten.
    """
    if not target.exists():
        return
    if not overwrite:
        raise RequestError(f"{target} exists: name another place, or add --overwrite to replace it")
    empty = target.is_dir() and not any(target.iterdir())
    if not empty and not (target / MANIFEST_FILE).is_file():
        raise RequestError(f"{target} is not a bundle, so --overwrite does not replace it: name another place")


class _Hashes:
    """Hashes files in its own thread, so that two cores share writing and hashing."""

    def __init__(self) -> None:
        self._started: dict[Path, tuple[tuple[int, int], Future[str]]] = {}
        self._stopped = threading.Event()
        self._thread: ThreadPoolExecutor | None = None

    def start(self, file: Path) -> None:
        """Start to hash a complete file."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sha256")
        self._started[file] = (_stamp(file), self._thread.submit(sha256_of, file, self._stopped))

    def add(self, file: Path, digest: str) -> None:
        """Store the hash of a complete file, as computed by its writer."""
        computed: Future[str] = Future()
        computed.set_result(digest)
        self._started[file] = (_stamp(file), computed)

    def of(self, file: Path) -> str:
        """Hash of a file, computed again if the file has changed since it was hashed."""
        stamp, started = self._started.get(file, (None, None))
        if started is not None and stamp == _stamp(file):
            return started.result()
        return sha256_of(file)

    def stop(self) -> None:
        """End the thread, even in the middle of a file."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)


def _stamp(file: Path) -> tuple[int, int]:
    """Size and modification time in nanoseconds, which differ once the file has changed."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _flush(path: Path) -> None:
    """Force a file's contents, or a directory's entries, onto the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows can't open directories, and journals renames anyway
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
