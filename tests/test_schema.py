"""Types and ranges of values, and messages that stay short for any value."""

from typing import Any

import pytest

from vinograph.schema import (
    Divisor,
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
    label,
)
from vinograph.values import MAX_SHOWN, shown

NO_LISTS: list[Any] = [[], [1, 2, 3], "ab", {}, None]
NO_OBJECTS: list[Any] = [{}, {"a": 1, "b": 1, "c": 1}, [], None]
NO_CHOICES: list[Any] = ["c", [], None]
SIZE = Record({"width": Whole(1, 10)}, {"scale": Real(0, 1)})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((Whole(1, 3), each) for each in (1, 3)),
        *((Real(0, 1), each) for each in (0, 1, 0.5)),
        *((Divisor(), each) for each in (1, -1e-30, 1e30)),
        *((Flag(), each) for each in (True, False)),
        *((Text(3), each) for each in ("", "abc", "é漢 ")),
        (Text(choices=("a", "b")), "b"),
        *((Maybe(Whole(1, 3)), each) for each in (None, 2)),
        *((Either(Whole(1, 3), Text(3)), each) for each in (2, "n")),
        *((Many(Whole(1, 3), 1, 2), each) for each in ([1], (2, 3))),
        (Named(Whole(1, 3)), {"a": 1}),
        *((SIZE, each) for each in ({"width": 1}, {"width": 1, "scale": 0.5})),
        (Record({}, open=True), {"anything": []}),
    ],
)
def test_values_that_fit_are_accepted(kind: Kind, value: Any) -> None:
    kind.check("it", value)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        *((Whole(1, 3), each, "it is .*, where a whole number from 1 to 3") for each in (0, 4, True, 1.0, "1", None)),
        *((Real(0, 1), each, "a number from 0 to 1") for each in (-0.1, 2, float("nan"), float("inf"), True, "0")),
        *((Divisor(), each, "a number whose size is from") for each in (0, 1e-31, 1e31, float("nan"), "1")),
        *((Flag(), each, "true or false") for each in (0, 1, "true", None)),
        *((Text(3), each, "a line of at most 3") for each in ("abcd", "a\n", "\x1b", "\ud800", "\u2028", 3, None)),
        *((Text(choices=("a", "b")), each, "one of a, b") for each in NO_CHOICES),
        (Maybe(Whole(1, 3)), 4, "a whole number"),
        (Either(Whole(1, 3), Text(3)), [], "a whole number from 1 to 3, or a line"),
        *((Many(Whole(1, 3), 1, 2), each, "a list of 1 to 2") for each in NO_LISTS),
        (Many(Whole(1, 3), 1, 2), [1, 4], r"it\[1\] is 4"),
        *((Named(Whole(1, 3), 1, 2), each, "an object of 1 to 2") for each in NO_OBJECTS),
        (Named(Whole(1, 3)), {"a": 4}, "it.a is 4"),
        (Named(Whole(1, 3)), {"\x1b": 1}, "a name in it is"),
        (SIZE, {}, "it.width is missing; a whole number from 1 to 10 should be there"),
        (SIZE, {"width": 1, "colour": 1}, "it has 'colour'; known are width, scale"),
        (SIZE, {"width": 1, "scale": 2}, "it.scale is 2"),
        (SIZE, [], "an object with width"),
    ],
)
def test_values_that_do_not_fit_are_named(kind: Kind, value: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        kind.check("it", value)


class Rude:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), "x" * 10**6, [[["x" * 1000] * 1000] * 1000], {"a" * 1000: "b" * 1000}, Rude()],
    ids=["a large number", "a negative one", "a long text", "lists of lists", "an object", "a rude one"],
)
def test_a_message_stays_short(value: Any) -> None:
    assert len(shown(value)) <= MAX_SHOWN
    assert len(label(value)) <= MAX_SHOWN


def test_a_short_name_is_repeated_as_it_is() -> None:
    assert label("unet") == "unet"
    assert label("\x1b[2J") == r"'\x1b[2J'"
