"""Foreign JSON is read within limits of depth, length and numbers."""

from pathlib import Path

import pytest

from vinograph.strict_json import DEEPEST, JsonError, parse, parse_object, read_object


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_ordinary_json_is_read() -> None:
    assert parse('{"a": [1, -2.5, null, true, "ä"]}') == {"a": [1, -2.5, None, True, "ä"]}
    assert parse(b'"\xc3\xa4"') == "ä"
    assert parse(str(2**63)) == 2**63


def test_nesting_up_to_the_limit_is_read() -> None:
    assert parse(nested(DEEPEST)) is not None


@pytest.mark.parametrize("depth", [DEEPEST + 1, 900, 1_100, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deeper_nesting_is_refused(depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    with pytest.raises(JsonError, match="nested more than"):
        parse(opening * depth + "0" + closing * depth)


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "1" + "0" * 400, "9" * 5_000, "[1", "", "\ufeff{}", '"\\ud8"'],
)
def test_invalid_and_excessive_json_is_refused(text: str) -> None:
    with pytest.raises(JsonError):
        parse(text)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(JsonError):
        parse(b'"\xff"')


def test_a_long_text_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(JsonError, match="over the limit of 10"):
        parse("x" * 11, largest=10)


def test_a_document_that_is_no_object_is_refused() -> None:
    with pytest.raises(JsonError, match="not a JSON object"):
        parse_object("[]")


def test_a_duplicate_key_is_refused_where_it_matters() -> None:
    assert parse_object('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(JsonError, match="twice"):
        parse_object('{"a": 1, "a": 2}', unique=True)


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"a": 1}')
    assert read_object(file) == {"a": 1}
    with pytest.raises(JsonError, match="over the limit of 4"):
        read_object(file, largest=4)


def test_minus_infinity_is_accepted_where_allowed() -> None:
    assert parse_object('{"lambda_min_clipped": -Infinity}', infinity=True) == {"lambda_min_clipped": float("-inf")}
    for name in ("Infinity", "NaN"):
        with pytest.raises(JsonError):
            parse(name, infinity=True)
