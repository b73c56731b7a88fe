"""Declares the fields that an API takes: one table is both read by and documented.

The kinds of :mod:`vinograph.schema` declare values. :class:`Prose`, :class:`Base64Picture` and
:class:`Anything` are further ones, and :func:`json_schema` writes any of them as JSON Schema.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vinograph.schema import (
    Either,
    Flag,
    Kind,
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

_FLAGS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Prose:
    """A text of at most ``longest`` characters, of any lines."""

    longest: int = 32_000

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"a text of at most {self.longest:,} characters"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, and texts that are too long."""
        if not isinstance(value, str) or len(value) > self.longest:
            raise SchemaError(f"{where} is {shown(value)}, where {self.wanted} should be")


@dataclass(frozen=True)
class Base64Picture:
    """A PNG, JPEG or WebP picture in base64; its bytes are checked where they are decoded."""

    wanted: str = "a picture's bytes in base64"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds."""
        if not isinstance(value, str):
            raise SchemaError(f"{where} is {shown(value)}, where {self.wanted} should be")


@dataclass(frozen=True)
class Anything:
    """Any value: it is taken, and ignored."""

    wanted: str = "any value"

    def check(self, where: str, value: Any) -> None:
        """Refuse nothing."""


@dataclass(frozen=True)
class Field:
    """A field of a request's body.

    Attributes:
        name: its name in the body.
        schema: what values it takes.
        about: what it means, for the OpenAPI document.
        argument: the argument of :class:`vinograph.request.Request` that it sets, if it sets one.
        needed: whether a request without it is refused.
    """

    name: str
    schema: Kind
    about: str
    argument: str | None = None
    needed: bool = False


def from_text(kind: Kind, text: str) -> Any:
    """A form's text as a value of a kind; a text that isn't one is returned for its check to refuse."""
    match kind:
        case Maybe():
            return None if text == "null" else from_text(kind.each, text)
        case Either():
            value = from_text(kind.one, text)
            return from_text(kind.other, text) if value is text else value
        case Flag():
            return _FLAGS.get(text.strip().lower(), text)
        case Whole() | Real():
            with contextlib.suppress(ValueError):
                return int(text) if isinstance(kind, Whole) else float(text)
    return text


def json_schema(kind: Kind) -> dict[str, Any]:
    """A kind as JSON Schema (2020-12, as OpenAPI 3.1 has it)."""
    match kind:
        case Whole():
            return {"type": "integer", "minimum": kind.least, "maximum": kind.most}
        case Real():
            return {"type": "number", "minimum": kind.least, "maximum": kind.most}
        case Flag():
            return {"type": "boolean"}
        case Text() | Prose():
            enum = {"enum": [*kind.choices]} if isinstance(kind, Text) and kind.choices else {}
            return {"type": "string", "maxLength": kind.longest, **enum}
        case Base64Picture():
            return {"type": "string", "contentEncoding": "base64"}
        case Maybe():
            return {"anyOf": [json_schema(kind.each), {"type": "null"}]}
        case Either():
            return {"anyOf": [json_schema(kind.one), json_schema(kind.other)]}
        case Many():
            return {
                "type": "array",
                "items": json_schema(kind.each),
                "minItems": kind.least,
                "maxItems": kind.most,
            }
        case Named():
            return {"type": "object", "additionalProperties": json_schema(kind.each), "maxProperties": kind.most}
        case Record():
            return {
                "type": "object",
                "properties": {name: json_schema(each) for name, each in {**kind.needed, **kind.others}.items()},
                "required": [*kind.needed],
                "additionalProperties": kind.open,
            }
        case Anything():
            return {}
        case _:
            raise TypeError(f"there is no JSON Schema for {type(kind).__name__}")


def object_schema(fields: Iterable[Field]) -> dict[str, Any]:
    """A table of fields as the JSON Schema of an object, which may hold further fields."""
    table = list(fields)
    return {
        "type": "object",
        "properties": {each.name: {**json_schema(each.schema), "description": each.about} for each in table},
        "required": [each.name for each in table if each.needed],
    }
