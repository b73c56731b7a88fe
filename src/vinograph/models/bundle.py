"""The bundle: the directory that conversion writes and inference reads.

A bundle holds ``bundle.json`` (the :class:`Manifest`), an OpenVINO IR for each component, and the
tokenizers. The manifest is the whole contract between conversion and inference: drawing reads
nothing else of the source checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from vinograph import strict_json
from vinograph.errors import DamagedModelError, ModelError
from vinograph.files import digest_of
from vinograph.models.manifest import MANIFEST_FILE, FileRecord, Manifest, check_checksum
from vinograph.models.manifest_schema import NAME
from vinograph.schema import SchemaError
from vinograph.text import Tokenizer


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, whose files all had their sizes when it was opened.

    Its manifest bears the directory's name, also where the directory was renamed.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path, name: str | None = None) -> Bundle:
        """Read the manifest in ``path``, and check that every file is there with its size.

        ``name`` is what the model is called, by default as the directory is.

        Raises:
            ModelError: there is no bundle, or it is of a newer format.
            DamagedModelError: the manifest is garbled, or a file is missing or has another size.
        """
        file = path / MANIFEST_FILE
        if not file.is_file():
            raise ModelError(f"{path} is not a bundle: it has no {MANIFEST_FILE}")
        manifest = Manifest.from_json(_read_manifest_bytes(file), str(file))
        bundle = cls(path, called(manifest, path.absolute().name if name is None else name))
        for name, record in bundle.manifest.files.items():
            bundle._check_size(name, record)
        graphs = [each.file for each in bundle.manifest.components.values()]
        weights = [weights_of(name) for name in graphs]
        for name in (*graphs, *weights, *(each.file for each in bundle.manifest.tokenizers.values())):
            if name not in bundle.manifest.files:
                raise DamagedModelError(f"{file} names no size for {name}, a file that the model needs")
        return bundle

    def verify(self) -> Iterator[str]:
        """Check the manifest's checksum and all files' hashes, yielding each right file's name.

        Raises:
            DamagedModelError: the manifest or a file was altered.
        """
        file = self.path / MANIFEST_FILE
        check_checksum(_read_manifest_bytes(file), str(file))
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
        """All files, since the manifest has the hash of each."""
        return self.files

    @property
    def tokenizers(self) -> Collection[str]:
        """The tokenizers' names."""
        return self.manifest.tokenizers.keys()

    def component_plan(self, _name: str) -> None:
        """None, since a bundle's components are files already."""

    def extension(self, _name: str) -> None:
        """None: a component's graph has all of it."""

    def weights_size(self, name: str) -> int:
        """The bytes of a component's weights."""
        return self.manifest.files[weights_of(self.manifest.components[name].file)].size

    def fingerprint(self, name: str) -> str:
        """The hashes of a component's files."""
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
        """The bytes of all files that the manifest lists."""
        return sum(record.size for record in self.manifest.files.values())


def called(manifest: Manifest, name: str) -> Manifest:
    """``manifest`` with the model's ``name``; with its own where no manifest may have this one."""
    try:
        NAME.check("name", name)
    except SchemaError:
        return manifest
    return dataclasses.replace(manifest, name=name) if name else manifest


def weights_of(graph: str) -> str:
    """The file with the weights of the ``graph`` (.xml)."""
    return graph.removesuffix(".xml") + ".bin"


def _read_manifest_bytes(file: Path) -> bytes:
    """The bytes of a manifest, cut where its reader would refuse it as too large."""
    with file.open("rb") as stream:
        return stream.read(strict_json.LARGEST + 1)


def sha256_of(file: Path, stopped: threading.Event | None = None) -> str:
    """The SHA-256 of a file in hexadecimal; once ``stopped`` is set, its rest is left out."""
    return digest_of(file, hashlib.sha256(), stopped)
