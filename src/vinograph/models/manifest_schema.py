"""Schema of ``bundle.json``: its entries, and the kinds of their values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vinograph.schema import (
    Either,
    Flag,
    Many,
    Maybe,
    Named,
    Real,
    Record,
    SchemaError,
    Text,
    Whole,
)
from vinograph.values import shown

FORMAT_VERSION = 1


@dataclass(frozen=True)
class _FileName:
    """A file in the bundle: a relative path with slashes that ends in ``ending``."""

    ending: str = ""

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"the name of a file in the bundle{f' that ends in {self.ending}' if self.ending else ''}"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, and paths that lead out of the bundle."""
        Text(255).check(where, value)
        parts = value.split("/")
        if "\\" in value or ":" in value or {"", ".", ".."} & set(parts):
            raise SchemaError(f"{where} names a file outside the bundle: {value}")
        if not value.endswith(self.ending):
            raise SchemaError(f"{where} is {shown(value)}, where {self.wanted} should be")


@dataclass(frozen=True)
class _Sha256:
    """A SHA-256 in hexadecimal."""

    wanted: str = "64 hexadecimal digits"

    def check(self, where: str, value: Any) -> None:
        """Refuse anything else."""
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
            raise SchemaError(f"{where} is {shown(value)}, where {self.wanted} should be")


NAME = Text(200)
"""A model's name, and other short texts."""
VOCABULARY = Many(Text(50), most=100_000)
"""The words that a model has seen."""

_COUNT = Whole(0, 2**31)
_SECONDS = Real(1e-9, 1e9)
_TENSOR = Record(
    {"shape": Many(Either(Whole(1, 2**31), Text(32)), most=8), "dtype": Text(choices=("f32", "f16", "i64", "i32"))}
)
_COMPONENT = Record(
    {
        "file": _FileName(".xml"),
        "inputs": Named(_TENSOR, most=100),
        "outputs": Named(_TENSOR, most=100),
        "weights": Text(choices=("f32", "f16", "int8", "int4")),
    },
    {"f16_safe": Flag(), "activations": Maybe(Text(choices=("int8", "int8 convolutions")))},
)
_SPEED = Record(
    {
        "processor": NAME,
        "cores": Whole(1, 1_000_000),
        "denoisers": Named(
            Record({"before": _SECONDS, "after": _SECONDS, "calls": Whole(1, 1_000_000)}), least=1, most=100
        ),
    }
)

SCHEMA = Record(
    {
        "format_version": Whole(1, FORMAT_VERSION),
        "family": NAME,
        "name": NAME,
        "components": Named(_COMPONENT, most=100),
        "tokenizers": Named(
            Record({"file": _FileName(".json"), "max_length": Whole(1, 65_536), "pad_id": _COUNT}), most=100
        ),
        "scheduler": Record({}, open=True),
        "config": Record({}, open=True),
        "defaults": Record({}, open=True),
        "limits": Record({}, open=True),
        "source": Record({"id": Text()}, {"revision": Maybe(NAME), "licence": Maybe(NAME), "also": Named(Text())}),
        "tools": Named(NAME, most=100),
        "files": Named(Record({"size": Whole(0, 2**62), "sha256": _Sha256()}), most=10_000, name=_FileName()),
    },
    {
        "quantization": Maybe(
            Record({"mode": NAME, "prompts": _COUNT, "samples": _COUNT, "tools": Named(NAME), "speed": _SPEED})
        ),
        "notes": Many(Text()),
        "vocabulary": VOCABULARY,
    },
    open=True,  # later versions of this format may add entries
)
"""Schema of ``bundle.json``, except for the entries that its family declares."""
