"""The bundle: the directory that conversion writes and inference reads.

A bundle holds ``bundle.json`` (the :class:`Manifest`), one OpenVINO IR per component and the tokenizers. The
manifest is the whole contract between conversion and inference: nothing else of the source checkpoint is read
when drawing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vinograph import strict_json
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.files import digest_of, hidden_sibling, is_full, write_atomically
from vinograph.models.manifest import CHECKSUM, MANIFEST_FILE, FileRecord, Manifest, check_checksum, checksum
from vinograph.text import Tokenizer

_PROGRESS_FILE = "progress.json"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its directory and its manifest. Every file was there with its size when it was opened."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read the manifest in ``path`` and check that every file is there with the size it says.

        Raises:
            ModelError: there is no bundle, or it is of a newer format.
            DamagedModelError: the manifest is garbled, or a file is missing, short or long.
        """
        file = path / MANIFEST_FILE
        if not file.is_file():
            raise ModelError(f"{path} is not a bundle: it has no {MANIFEST_FILE}")
        bundle = cls(path, Manifest.from_json(_read(file), str(file)))
        for name, record in bundle.manifest.files.items():
            bundle._check_size(name, record)
        graphs = [each.file for each in bundle.manifest.components.values()]
        weights = [weights_of(name) for name in graphs]
        for name in (*graphs, *weights, *(each.file for each in bundle.manifest.tokenizers.values())):
            if name not in bundle.manifest.files:
                raise DamagedModelError(f"{file} names no size for {name}, a file that the model needs")
        return bundle

    def verify(self) -> Iterator[str]:
        """Check the manifest's own checksum, then hash every file, yielding the name of each one that is right.

        Raises:
            DamagedModelError: a file's contents are not what conversion wrote.
        """
        file = self.path / MANIFEST_FILE
        check_checksum(_read(file), str(file))
        for name, record in self.manifest.files.items():
            self._check_size(name, record)
            if sha256_of(self.path / name) != record.sha256:
                raise DamagedModelError(
                    f"{self.path / name} was altered: its SHA-256 differs from the manifest's. Convert the model again."
                )
            yield name

    def _check_size(self, name: str, record: FileRecord) -> None:
        file = self.path / name
        if not file.is_file():
            raise DamagedModelError(f"{file} is missing. Convert the model again.")
        size = file.stat().st_size
        if size != record.size:
            raise DamagedModelError(
                f"{file} has {size:,} bytes and should have {record.size:,}. Convert the model again."
            )

    @property
    def files(self) -> Collection[str]:
        """The names of the files that :meth:`verify` checks."""
        return self.manifest.files.keys()

    @property
    def hashed_files(self) -> Collection[str]:
        """Those of them that a hash is known of: all."""
        return self.files

    @property
    def tokenizers(self) -> Collection[str]:
        """The tokenizers' names."""
        return self.manifest.tokenizers.keys()

    def plan(self, _name: str) -> None:
        """Components of a bundle aren't built: they lie there as OpenVINO's files."""

    def weights_size(self, name: str) -> int:
        """Bytes of a component's weights."""
        return self.manifest.files[weights_of(self.manifest.components[name].file)].size

    def fingerprint(self, name: str) -> str:
        """What a component is known by between processes: hashes of its files."""
        graph = self.manifest.components[name].file
        return " ".join(self.manifest.files[each].sha256 for each in (graph, weights_of(graph)))

    def tokenizer(self, name: str) -> Tokenizer:
        """Read a tokenizer.

        Raises:
            DamagedModelError: its file is not a tokenizer.
        """
        file = self.manifest.tokenizers[name]
        return Tokenizer(self.path / file.file, file.max_length, file.pad_id)

    @property
    def size(self) -> int:
        """Bytes of all files that the manifest lists."""
        return sum(record.size for record in self.manifest.files.values())


def weights_of(graph: str) -> str:
    """The file with the weights of a ``graph`` (.xml)."""
    return graph.removesuffix(".xml") + ".bin"


class BundleWriter:
    """Writes a bundle so that a killed conversion leaves nothing that loads, and can go on where it stopped.

    Files go into the hidden sibling ``.NAME.partial``. A step counts as done once :meth:`mark_done` has recorded it,
    and only while its files have the sizes that they had then. What a step was made of is deleted after that, never
    before. :meth:`finish` writes the manifest with the hashes of all files, flushes and renames the directory into
    place. The files of a step are hashed in a thread while the next one is written.
    ``fingerprint`` says what is being converted and how: a partial directory with another one is discarded.

    Raises:
        RequestError: the target exists and ``overwrite`` is false, another conversion is writing it, or nothing can be
            written there.
    """

    def __init__(self, target: Path, fingerprint: str, overwrite: bool = False) -> None:
        self.target = Path(os.path.realpath(target))
        self.partial = hidden_sibling(self.target, ".partial")
        self._replaced = hidden_sibling(self.target, ".replaced")
        self._fingerprint = fingerprint
        self._overwrite = overwrite
        self._lock = FileLock(hidden_sibling(self.target, ".lock"))
        self._done: dict[str, _Step] = {}
        self._hashes = _Hashes()

    def __enter__(self) -> BundleWriter:
        """Take the lock and find what an earlier, interrupted conversion left."""
        check_target(self.target, self._overwrite)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._recover()
        except BaseException:
            self._release_lock()
            raise
        return self

    def _take_lock(self) -> None:
        lock = Path(self._lock.lock_file)
        try:
            lock.touch()  # filelock waits for a place that can't be written as for one that is locked
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

    def _recover(self) -> None:
        """Bring back a bundle that was being replaced, and empty the partial directory of what can't be used."""
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
        for unfinished in self.partial.glob(".*.tmp"):  # of a conversion that was killed while it wrote one
            unfinished.unlink()

    def _discard_replaced(self) -> None:
        """Delete the old bundle. Its manifest goes first: without it, a half-deleted one is never brought back."""
        if self._replaced.is_dir():
            (self._replaced / MANIFEST_FILE).unlink(missing_ok=True)
            shutil.rmtree(self._replaced)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Release the lock. What is done stays for the next try, unless the disk was full."""
        self._hashes.stop()
        if isinstance(error, OSError) and is_full(error):
            shutil.rmtree(self.partial, ignore_errors=True)
        self._release_lock()

    def _release_lock(self) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def done(self, step: str) -> Any | None:
        """What :meth:`mark_done` recorded for ``step`` in this or an interrupted conversion.

        None if it recorded nothing, or a file of the step is missing or has another size than it had then.
        """
        found = self._done.get(step)
        return None if found is None or found.sizes != self._sizes(found.sizes) else found.record

    def is_whole(self, file: Path) -> bool:
        """Whether ``file`` was recorded with a step, and has the size that it had then."""
        name = file.relative_to(self.partial).as_posix()
        size = self._sizes([name]).get(name)
        return size is not None and any(found.sizes.get(name) == size for found in self._done.values())

    def mark_done(self, step: str, record: Any, files: Iterable[Path] = ()) -> None:
        """Record that ``files``, all those of ``step``, are whole; ``record`` is JSON that describes it.

        The files lie in the partial directory. They are on the disk before the record is.
        """
        names = [file.relative_to(self.partial).as_posix() for file in files]
        for name in names:
            _flush(self.partial / name)
        self._done[step] = _Step(record, self._sizes(names))
        self._write_progress()
        for name in names:
            self._hashes.begin(self.partial / name)

    def forget(self, steps: Iterable[str]) -> None:
        """Have ``steps`` count as not done, before what they were made of is made again."""
        for step in steps:
            self._done.pop(step, None)
        self._write_progress()

    def keep_only(self, names: Collection[str]) -> None:
        """Delete what lies in the partial directory under other names: a killed conversion may have left it."""
        for file in sorted(self.partial.rglob("*"), reverse=True):  # what a folder holds comes before the folder
            name = file.relative_to(self.partial).as_posix()
            if file.is_dir():
                if not any(file.iterdir()):
                    file.rmdir()
            elif name not in names and name != _PROGRESS_FILE:
                file.unlink()

    def finish(self, manifest: Manifest) -> Bundle:
        """Write the manifest with the files' hashes, and move the bundle into place; the old one stays until then."""
        files = {name: self._record(name) for name in self._names()}
        whole = dataclasses.replace(manifest, files=files)
        whole.check_before_writing(f"its {MANIFEST_FILE}")
        for name in files:
            _flush(self.partial / name)
        for folder in sorted({(self.partial / name).parent for name in files} - {self.partial}):
            _flush(folder)
        # From here on a killed conversion starts afresh: what has a manifest is a bundle, not work in progress.
        (self.partial / _PROGRESS_FILE).unlink()
        write_atomically(self.partial / MANIFEST_FILE, whole.to_json().encode(), flush=True)
        _flush(self.partial)
        if self.target.exists():
            self.target.rename(self._replaced)
        self.partial.rename(self.target)
        _flush(self.target.parent)
        self._discard_replaced()
        return Bundle.open(self.target)

    def _names(self) -> list[str]:
        """The names of the bundle's files but for its manifest, in order."""
        found = (p.relative_to(self.partial).as_posix() for p in self.partial.rglob("*") if p.is_file())
        return sorted(name for name in found if name not in (MANIFEST_FILE, _PROGRESS_FILE))

    def _record(self, name: str) -> FileRecord:
        file = self.partial / name
        return FileRecord(file.stat().st_size, self._hashes.of(file))

    def _sizes(self, names: Iterable[str]) -> dict[str, int]:
        """The sizes of those of the files that there are."""
        files = {name: self.partial / name for name in names}
        return {name: file.stat().st_size for name, file in files.items() if file.is_file()}

    def _read_progress(self) -> dict[str, _Step]:
        try:
            progress = strict_json.read_object(self.partial / _PROGRESS_FILE)
        except (OSError, ValueError):
            return {}
        if progress.pop(CHECKSUM, None) != checksum(progress) or progress.get("fingerprint") != self._fingerprint:
            return {}
        return {step: _Step(**found) for step, found in progress["done"].items()}

    def _write_progress(self) -> None:
        done = {step: dataclasses.asdict(found) for step, found in self._done.items()}
        progress = {"fingerprint": self._fingerprint, "done": done}
        text = json.dumps({**progress, CHECKSUM: checksum(progress)})
        write_atomically(self.partial / _PROGRESS_FILE, text.encode(), flush=True)


@dataclass(frozen=True)
class _Step:
    """A step that is done: what describes it, and its files' sizes by their names in the partial directory."""

    record: Any
    sizes: Mapping[str, int]


def _read(file: Path) -> bytes:
    """A manifest's bytes; of one that is too large no more than what its reader refuses."""
    with file.open("rb") as stream:
        return stream.read(strict_json.LARGEST + 1)


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a target that exists, unless it is a bundle and ``overwrite`` was asked for."""
    if not target.exists():
        return
    if not overwrite:
        raise RequestError(f"{target} exists: name another place, or add --overwrite to replace it")
    empty = target.is_dir() and not any(target.iterdir())
    if not empty and not (target / MANIFEST_FILE).is_file():
        raise RequestError(f"{target} is not a bundle, so --overwrite does not replace it: name another place")


def sha256_of(file: Path, stopped: threading.Event | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal; of a part of it when ``stopped`` is set meanwhile."""
    return digest_of(file, hashlib.sha256(), stopped)


class _Hashes:
    """The SHA-256 of files, computed by one thread while others are written: two cores share the work."""

    def __init__(self) -> None:
        self._begun: dict[Path, tuple[tuple[int, int], Future[str]]] = {}
        self._stopped = threading.Event()
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, file: Path) -> None:
        """Have a file hashed that is whole."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sha256")
        self._begun[file] = (_stamp(file), self._thread.submit(sha256_of, file, self._stopped))

    def of(self, file: Path) -> str:
        """The hash of a file: what was begun, unless the file was changed since."""
        stamp, begun = self._begun.get(file, (None, None))
        if begun is not None and stamp == _stamp(file):
            return begun.result()
        return sha256_of(file)

    def stop(self) -> None:
        """End the thread, also in the middle of a file."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)


def _stamp(file: Path) -> tuple[int, int]:
    """What differs when a file was changed: its size, and when it was written, in nanoseconds."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _flush(path: Path) -> None:
    """Force a file's contents, or a directory's entries, onto the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no directories; its renames are journalled
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
