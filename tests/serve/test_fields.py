"""Tables of fields: what they check, read from forms, and say in the OpenAPI document."""

from __future__ import annotations

from typing import Any

import pytest

from vinograph.schema import Either, Flag, Kind, Many, Maybe, Named, Real, Record, SchemaError, Text, Whole
from vinograph.serve.fields import (
    Anything,
    Base64Picture,
    Field,
    Prose,
    from_text,
    json_schema,
    object_schema,
)

TABLE = [
    Field("prompt", Prose(20), "what to draw", "prompt", needed=True),
    Field("n", Maybe(Whole(1, 10)), "pictures", "num_images_per_prompt"),
    Field("user", Anything(), "ignored"),
]


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Prose(20), "x" * 21), (Prose(20), ["a"]), (Prose(20), None), (Base64Picture(), b"a"), (Base64Picture(), None)],
)
def test_values_that_do_not_fit_are_refused(kind: Kind, value: object) -> None:
    with pytest.raises(SchemaError, match=r"prompt is .*, where a"):
        kind.check("prompt", value)


def test_prose_has_lines_and_anything_is_anything() -> None:
    Prose(20).check("prompt", "a\nb")
    Base64Picture().check("image", "aaaa")
    Anything().check("user", object())


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Whole(1, 9), "3", 3),
        (Whole(1, 9), "3.5", "3.5"),
        (Real(0, 9), "3.5", 3.5),
        (Flag(), "True", True),
        (Flag(), "0", False),
        (Flag(), "yes", "yes"),
        (Maybe(Whole(1, 9)), "null", None),
        (Maybe(Whole(1, 9)), "4", 4),
        (Either(Whole(1, 9), Flag()), "true", True),
        (Either(Whole(1, 9), Flag()), "2", 2),
        (Prose(), "7", "7"),
    ],
)
def test_texts_of_a_form_become_values(kind: Kind, text: str, value: object) -> None:
    read = from_text(kind, text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (Whole(1, 9), {"type": "integer", "minimum": 1, "maximum": 9}),
        (Real(0, 1), {"type": "number", "minimum": 0, "maximum": 1}),
        (Flag(), {"type": "boolean"}),
        (Text(9), {"type": "string", "maxLength": 9}),
        (Text(9, ("a", "b")), {"type": "string", "maxLength": 9, "enum": ["a", "b"]}),
        (Base64Picture(), {"type": "string", "contentEncoding": "base64"}),
        (Maybe(Flag()), {"anyOf": [{"type": "boolean"}, {"type": "null"}]}),
        (Either(Flag(), Prose(3)), {"anyOf": [{"type": "boolean"}, {"type": "string", "maxLength": 3}]}),
        (Many(Flag(), 1, 2), {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}),
        (Named(Flag(), most=3), {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 3}),
        (
            Record({"a": Flag()}, {"b": Anything()}),
            {
                "type": "object",
                "properties": {"a": {"type": "boolean"}, "b": {}},
                "required": ["a"],
                "additionalProperties": False,
            },
        ),
    ],
)
def test_every_kind_has_a_json_schema(kind: Kind, schema: dict[str, Any]) -> None:
    assert json_schema(kind) == schema


def test_a_table_is_the_schema_of_an_object() -> None:
    schema = object_schema(TABLE)
    assert schema["required"] == ["prompt"]
    assert schema["properties"]["prompt"] == {"type": "string", "maxLength": 20, "description": "what to draw"}
