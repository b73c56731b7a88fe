"""A published checkpoint as a model: its manifest, and its components before they are built."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vinograph import __version__
from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.checkpoint import BeforeFetch, Checkpoint, do_nothing_before_fetch
from vinograph.models.hub_hashes import hub_hash
from vinograph.models.manifest import Component, Manifest, Tensor
from vinograph.models.parts import ComponentPlan
from vinograph.models.tokenizers import CLIP, TokenizerData, TokenizerKind, read_tokenizer
from vinograph.networks.graph import Ports
from vinograph.schema import SchemaError
from vinograph.text import Tokenizer

_BLOCK = 1 << 22


@dataclass(frozen=True)
class TokenizerPlan:
    """A tokenizer that is not read yet: its folder and kind, and its text encoder's most tokens.

    ``pad_id`` is its padding where the folder's own doesn't count.
    """

    folder: Path
    text_length: int
    kind: TokenizerKind = CLIP
    pad_id: int | None = None

    def read(self) -> tuple[TokenizerData, int]:
        """Read the tokenizer; with it comes the most tokens that both it and its text encoder take.

        Raises:
            DamagedModelError: its files are not those of such a tokenizer.
        """
        data = read_tokenizer(self.folder, self.kind)
        if self.pad_id is not None:
            data = dataclasses.replace(data, pad_id=self.pad_id)
        return data, self.text_length if data.limit is None else min(data.limit, self.text_length)


@dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer in the form of a bundle: its ``file``, its most tokens and its padding's id."""

    folder: Path
    file: str
    text_length: int
    pad_id: int

    def read(self) -> tuple[TokenizerData, int]:
        """Read the tokenizer, and with it the most tokens that it takes."""
        content = (self.folder / self.file).read_text(encoding="utf-8")
        return TokenizerData(content, self.pad_id, None), self.text_length


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A published checkpoint whose tensors were compared with the networks of its family.

    ``manifest`` lists neither components nor tokenizers nor files, as only a bundle's does.
    ``files`` are all files that the model is read from.
    """

    manifest: Manifest
    components: tuple[ComponentPlan, ...]
    tokenizers: Mapping[str, TokenizerPlan | StoredTokenizer]
    files: tuple[Path, ...]
    licence_file: Path | None


@dataclass(frozen=True)
class PublishedCheckpoint:
    """What a family opens: a checkpoint, its model_index.json, and the family's options.

    ``before_fetch`` is called with all files that are needed, before any large one is fetched.
    """

    checkpoint: Checkpoint
    index: Mapping[str, Any]
    options: Mapping[str, Any]
    before_fetch: BeforeFetch = do_nothing_before_fetch


class CheckpointModel:
    """A published checkpoint as a model to draw with, like a bundle that was never written."""

    def __init__(self, path: Path, opened: OpenedCheckpoint) -> None:
        """Take an opened checkpoint, which lies at ``path``: a directory, or a single file."""
        self.path = path
        self.opened = opened
        self._plans = {plan.name: plan for plan in opened.components}
        self._tokenizers = opened.tokenizers
        self._configurations = tuple(file for file in opened.files if file.suffix == ".json")
        components = {
            plan.name: manifest_component(f"{plan.name}.xml", plan.ports, plan.weights, plan.f16_safe)
            for plan in opened.components
        }
        self.manifest = dataclasses.replace(opened.manifest, components=MappingProxyType(components))
        self._check_manifest()

    def _check_manifest(self) -> None:
        """Refuse a checkpoint whose numbers no bundle could have.

        Raises:
            ModelError: naming one.
        """
        try:
            self.manifest.check_for_family(self._tokenizers)
        except SchemaError as error:
            raise ModelError(f"{self.path} can't be used: {error}") from error

    @property
    def size(self) -> int:
        """The bytes of all weights."""
        files = {file for plan in self._plans.values() for file in plan.files}
        return sum(file.stat().st_size for file in files)

    @property
    def tokenizers(self) -> Collection[str]:
        """The tokenizers' names."""
        return self._tokenizers.keys()

    @property
    def files(self) -> Collection[str]:
        """The files that the model is read from."""
        return [str(file) for file in self.opened.files]

    @property
    def hashed_files(self) -> Collection[str]:
        """The files that lie in the hub's cache, with a hash from the hub."""
        return [str(file) for file in self.opened.files if hub_hash(file) is not None]

    def component_plan(self, name: str) -> ComponentPlan | None:
        """The plan by which a component is built."""
        return self._plans[name]

    def extension(self, _name: str) -> None:
        """None: a component's graph has all of it."""

    def weights_size(self, name: str) -> int:
        """The bytes of a component's weights."""
        return self._plans[name].size

    def fingerprint(self, name: str) -> str:
        """A hash that changes with a component's files and with the code that builds it."""
        files = (*self._plans[name].files, *self._configurations)
        stats = ((str(file.resolve()), file.stat()) for file in files)
        stamps = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
        return hashlib.sha256(repr((stamps, name, __version__, _code())).encode()).hexdigest()

    def tokenizer(self, name: str) -> Tokenizer:
        """Read a tokenizer.

        Raises:
            DamagedModelError: its files are not those of such a tokenizer.
        """
        plan = self._tokenizers[name]
        data, length = plan.read()
        return Tokenizer.from_content(data.content, str(plan.folder), length, data.pad_id)

    def verify(self) -> Iterator[str]:
        """Read every file and every tokenizer, yielding the name of each file that is right.

        A file in the hub's cache is compared with the hub's hash of it. Sizes, names, types and
        shapes were compared when the checkpoint was opened.

        Raises:
            DamagedModelError: a file was altered or can't be read, or a tokenizer's files are none.
        """
        for file in self.opened.files:
            published = hub_hash(file)
            if published is not None and not published.fits(file):
                raise DamagedModelError(
                    f"{file} was altered: its hash differs from the hub's. Delete it and fetch it again: "
                    f"hf download {published.repository} --force-download"
                )
            if published is None:
                _read_through(file)
            yield str(file)
        for name in self._tokenizers:
            self.tokenizer(name)


def _read_through(file: Path) -> None:
    """Read a file to its end, which a damaged disk fails at.

    Raises:
        DamagedModelError: the file can't be read.
    """
    try:
        with file.open("rb") as stream:
            while stream.read(_BLOCK):
                pass
    except OSError as error:
        raise DamagedModelError(f"{file} can't be read: {error.strerror or error}") from error


@cache
def _code() -> str:
    """A hash of the modules that build graphs, which in a checkout change without the version."""
    package = Path(__file__).parent.parent
    modules = [*package.glob("networks/*.py"), *package.glob("models/*.py"), *package.glob("families/*/*.py")]
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def manifest_component(file: str, ports: Ports, weights: str, f16_safe: bool) -> Component:
    """The entry of a manifest for a component whose graph lies in ``file``."""
    inputs, outputs = (
        {name: Tensor(port.shape, port.dtype) for name, port in side.items()} for side in (ports.inputs, ports.outputs)
    )
    return Component(file, inputs, outputs, weights, f16_safe)
