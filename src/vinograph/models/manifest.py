"""The manifest: the contents of ``bundle.json`` as dataclasses, and their checks.

:data:`SCHEMA` describes every manifest. The family reads its own entries (``config``,
``scheduler``) into a configuration of its own type, :attr:`Manifest.family_config`. Both happen
when a manifest is read and before one is written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vinograph import strict_json
from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.manifest_schema import FORMAT_VERSION, SCHEMA
from vinograph.schema import SchemaError
from vinograph.values import shown

if TYPE_CHECKING:
    from vinograph.families.sizes import SizeLimits

MANIFEST_FILE = "bundle.json"
CHECKSUM = "checksum"


@dataclass(frozen=True)
class Tensor:
    """One input or output of a component; a dimension that depends on the request is a name."""

    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class Component:
    """One OpenVINO IR: ``file`` is the ``.xml``, next to its ``.bin``.

    ``weights`` is how the weights are stored (``f32``, ``f16``, ``int8``, ``int4``). ``f16_safe``
    is False where half-precision arithmetic overflows: the runtime then computes in f32 on devices
    that would use f16. ``activations`` names the layers with int8 activations: ``int8
    convolutions``, or ``int8`` if linear layers have them, too.
    """

    file: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    weights: str
    f16_safe: bool = True
    activations: str | None = None


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer's file, and its padding: with ``pad_id``, to ``max_length`` tokens."""

    file: str
    max_length: int
    pad_id: int


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file of the bundle."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Origin of the weights."""

    id: str
    revision: str | None = None
    licence: str | None = None
    also: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DenoiserSpeed:
    """Seconds of a denoiser's call before and after quantization, and calls for one picture."""

    before: float
    after: float
    calls: int

    @property
    def ratio(self) -> float:
        """Speedup of a call."""
        return self.before / self.after


@dataclass(frozen=True)
class Speed:
    """Speed of the denoisers before and after quantization, on the machine that measured it."""

    processor: str
    cores: int
    denoisers: Mapping[str, DenoiserSpeed]

    @property
    def ratio(self) -> float:
        """Speedup of all calls for one picture."""
        before = sum(each.before * each.calls for each in self.denoisers.values())
        return before / sum(each.after * each.calls for each in self.denoisers.values())


@dataclass(frozen=True)
class Quantization:
    """How a bundle was quantized; ``prompts`` and ``samples`` are 0 without calibration."""

    mode: str
    prompts: int
    samples: int
    tools: Mapping[str, str]
    speed: Speed


@dataclass(frozen=True)
class Manifest:
    """The contents of ``bundle.json``.

    ``config`` holds the family's parameters for inference. ``defaults`` and ``limits`` serve to
    resolve requests. ``files`` has the size and hash of every other file. ``quantization`` is None
    for a converted bundle. ``notes`` are the assumptions that conversion had to make.
    ``vocabulary`` has the words that the model has seen; it is empty where they aren't known.
    Mappings are as in the file, with entries that later versions add; :attr:`family_config` and
    :attr:`sizes` are parsed from them.
    """

    family: str
    name: str
    components: Mapping[str, Component]
    tokenizers: Mapping[str, TokenizerFile]
    scheduler: Mapping[str, Any]
    config: Mapping[str, Any]
    defaults: Mapping[str, Any]
    limits: Mapping[str, Any]
    source: Source
    tools: Mapping[str, str]
    files: Mapping[str, FileRecord]
    format_version: int = FORMAT_VERSION
    quantization: Quantization | None = None
    notes: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The manifest as JSON with its own checksum; equal manifests give equal bytes."""
        data = _plain(self)
        for name in ("notes", "vocabulary"):
            if not data[name]:
                del data[name]  # as in bundles that were written before there was such an entry
        with_checksum = {**data, CHECKSUM: checksum(data)}
        return json.dumps(with_checksum, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, origin: str) -> Manifest:
        """Parse and check a manifest. ``origin`` names it in errors.

        Raises:
            ModelError: the format is newer than this version reads, or there is no such family or
                scheduler.
            DamagedModelError: the text is not a manifest, or a value in it doesn't fit the schema.
        """
        data = _parse(text, origin)
        _check_version(data, origin)
        try:
            SCHEMA.check("", data)
            manifest = cls._of(data)
            manifest.check_for_family()
        except SchemaError as error:
            raise DamagedModelError(f"{origin} lacks or garbles a field: {error}") from error
        return manifest

    @classmethod
    def _of(cls, data: Mapping[str, Any]) -> Manifest:
        """Make a manifest from ``data`` that fits the schema."""
        return cls(
            family=data["family"],
            name=data["name"],
            components=MappingProxyType({name: component_of(each) for name, each in data["components"].items()}),
            tokenizers=MappingProxyType({name: TokenizerFile(**each) for name, each in data["tokenizers"].items()}),
            scheduler=MappingProxyType(data["scheduler"]),
            config=MappingProxyType(data["config"]),
            defaults=MappingProxyType(data["defaults"]),
            limits=MappingProxyType(data["limits"]),
            source=Source(**data["source"]),
            tools=MappingProxyType(data["tools"]),
            files=MappingProxyType({name: FileRecord(**each) for name, each in data["files"].items()}),
            format_version=data["format_version"],
            quantization=_quantization(data.get("quantization")),
            notes=tuple(data.get("notes", ())),
            vocabulary=tuple(data.get("vocabulary", ())),
        )

    @cached_property
    def sizes(self) -> SizeLimits:
        """Size limits of the model.

        Raises:
            SchemaError: a limit is invalid; the message names it.
        """
        from vinograph.families.sizes import SizeLimits

        return SizeLimits.from_mapping(self.limits)

    @cached_property
    def family_config(self) -> Any:
        """The model's configuration, in its family's own type.

        Raises:
            SchemaError: a value does not fit; the message names it.
            ModelError: there is no such family, or no such scheduler.
        """
        from vinograph.families.contract import ManifestEntries
        from vinograph.families.registry import family

        outputs = {
            name: {output: tensor.shape for output, tensor in component.outputs.items()}
            for name, component in self.components.items()
        }
        return family(self.family).read_config(ManifestEntries(self.config, self.scheduler, outputs))

    def check_for_family(self, tokenizers: Collection[str] | None = None) -> None:
        """Check the configuration, sizes, defaults and tokenizers against the family.

        ``tokenizers`` are the names of the model's tokenizers; by default, the manifest's own. A
        manifest without components, which is not finished yet, may lack tokenizers.

        Raises:
            SchemaError: a value does not fit; the message names it.
            ModelError: there is no such family, or no such scheduler.
        """
        from vinograph.families.checks import check_defaults
        from vinograph.families.registry import family

        declared, _config, _sizes = family(self.family), self.family_config, self.sizes
        check_defaults(declared, self.defaults, self.limits)
        available = self.tokenizers if tokenizers is None else tokenizers
        missing = [name for name in declared.tokenizers if name not in available]
        if missing and self.components:
            raise SchemaError(f"tokenizers.{missing[0]} is missing, without which {self.family} models read no prompt")

    def check_before_writing(self, origin: str) -> None:
        """Refuse to write a manifest that :meth:`from_json` would not read.

        Raises:
            ModelError: a value is invalid; the message names it.
        """
        try:
            Manifest.from_json(self.to_json(), origin)
        except DamagedModelError as error:
            raise ModelError(f"the bundle can't be written: {error}") from error


def check_checksum(text: str | bytes, origin: str) -> None:
    """Compare a manifest with its own checksum.

    Raises:
        DamagedModelError: the manifest was altered.
    """
    data = _parse(text, origin)
    if data.pop(CHECKSUM, None) != checksum(data):
        raise DamagedModelError(f"{origin} was altered: it differs from its own checksum. Convert the model again.")


def _parse(text: str | bytes, origin: str) -> dict[str, Any]:
    try:
        return strict_json.parse_object(text, unique=True)
    except strict_json.JsonError as error:
        raise DamagedModelError(f"{origin} is not a bundle's manifest ({error})") from error


def _check_version(data: Mapping[str, Any], origin: str) -> None:
    if "format_version" not in data:
        raise DamagedModelError(f"{origin} is not a bundle's manifest (it has no format_version)")
    version = data["format_version"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DamagedModelError(f"{origin} names format version {shown(version)}, which never existed")
    if version > FORMAT_VERSION:
        tools = data.get("tools")
        needs = tools.get("vinograph") if isinstance(tools, dict) else None
        release = needs if isinstance(needs, str) and re.fullmatch(r"[\w.+-]{1,40}", needs) else "a newer one"
        raise ModelError(
            f"{origin} is in bundle format {version}; this version of Vinograph reads up to {FORMAT_VERSION}. "
            f"It was written by Vinograph {release}: pip install --upgrade vinograph"
        )


def component_of(data: Mapping[str, Any]) -> Component:
    """Make a component from ``data`` that fits the schema."""
    sides = {
        side: {name: Tensor(tuple(each["shape"]), each["dtype"]) for name, each in data[side].items()}
        for side in ("inputs", "outputs")
    }
    return Component(**{**data, **sides})


def _quantization(data: Mapping[str, Any] | None) -> Quantization | None:
    if data is None:
        return None
    speed = data["speed"]
    denoisers = {
        name: DenoiserSpeed(float(each["before"]), float(each["after"]), each["calls"])
        for name, each in speed["denoisers"].items()
    }
    return Quantization(
        mode=data["mode"],
        prompts=data["prompts"],
        samples=data["samples"],
        tools=MappingProxyType(data["tools"]),
        speed=Speed(speed["processor"], speed["cores"], MappingProxyType(denoisers)),
    )


def _plain(value: Any) -> Any:
    """Convert dataclasses, mappings and tuples to JSON's types."""
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's contents, independent of their layout."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
