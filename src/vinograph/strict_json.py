"""Parses untrusted JSON within limits of size, depth and number range.

Python's parser alone raises RecursionError for deep nesting, and accepts NaN, infinity and integers
of any length. This parser either returns a value that is safe to walk recursively, with numbers
that fit a float, or raises :class:`JsonError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

DEEPEST = 64
LARGEST = 16_000_000
LONGEST_INTEGER = 20  # digits with sign, enough for 64 bits


class JsonError(ValueError):
    """The text is not JSON, or exceeds a limit; the message says which, without quoting it."""


def parse(
    text: str | bytes,
    *,
    largest: int = LARGEST,
    unique: bool = False,
    infinity: bool = False,
    digits: int = LONGEST_INTEGER,
) -> Any:
    """Parse ``text``; bytes are UTF-8.

    Objects and lists are nested at most :data:`DEEPEST` deep, integers have at most ``digits``
    digits (by default enough for 64 bits), and every number is finite. With ``unique``, an object
    with a duplicate key is refused; otherwise the last one counts. With ``infinity``, -Infinity is
    accepted: Python's own writer, and so diffusers' schedulers, write it.

    Raises:
        JsonError: it is not JSON, longer than ``largest``, or beyond another limit.
    """
    if len(text) > largest:
        raise JsonError(f"it has {len(text):,} characters, over the limit of {largest:,}")
    try:
        value = json.loads(
            text,
            parse_int=partial(_integer, digits),
            parse_float=_float,
            parse_constant=_constant_or_infinity if infinity else _constant,
            object_pairs_hook=_unique if unique else None,
        )
    except RecursionError as error:
        raise JsonError(f"it is nested more than {DEEPEST} deep") from error
    except JsonError:
        raise
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise JsonError(f"it is not JSON: {error}") from error
    _check_depth(value)
    return value


def parse_object(
    text: str | bytes,
    *,
    largest: int = LARGEST,
    unique: bool = False,
    infinity: bool = False,
    digits: int = LONGEST_INTEGER,
) -> dict[str, Any]:
    """Parse ``text`` as a JSON object, with the checks of :func:`parse`.

    Raises:
        JsonError: as in :func:`parse`, or the value is not an object.
    """
    value = parse(text, largest=largest, unique=unique, infinity=infinity, digits=digits)
    if not isinstance(value, dict):
        raise JsonError("it is not a JSON object")
    return value


def read_object(
    file: Path, *, largest: int = LARGEST, infinity: bool = False, digits: int = LONGEST_INTEGER
) -> dict[str, Any]:
    """Parse a file as a JSON object; a file of over ``largest`` bytes is refused.

    Raises:
        JsonError: as in :func:`parse_object`.
        OSError: the file can't be read.
    """
    with file.open("rb") as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise JsonError(f"it has {file.stat().st_size:,} bytes, over the limit of {largest:,}")
    return parse_object(content, largest=largest, infinity=infinity, digits=digits)


def _integer(most: int, digits: str) -> int:
    if len(digits) > most:
        raise JsonError(f"it has an integer of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JsonError("it has a number beyond what a float holds")
    return value


def _constant(name: str) -> float:
    raise JsonError(f"it has {name}, which is no number in JSON")


def _constant_or_infinity(name: str) -> float:
    return -math.inf if name == "-Infinity" else _constant(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise JsonError("it names a key twice in one object")
    return value


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [child for each in level for child in _children(each)]
        if not level:
            return
    raise JsonError(f"it is nested more than {DEEPEST} deep")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
