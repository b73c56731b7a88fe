"""Mutations of JSON documents and bytes, and calls of the command line in this process."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from vinograph.cli import main

ALLOWED = {0, 2, 3, 4, 5, 130}
DEFECT = "This is a defect of Vinograph"

_TEXTS = ("", "a", "x" * 10_000, "../../etc/passwd", "/etc/hostname", "\x1b[2J\n", "\ud800", "NaN", "é漢", "null", "-1")
_NUMBERS = (0, 1, -1, 2, 3, 7, 1000, 65_536, 10**6, 2**31, 2**63, -(2**63), 0.0, -0.5, 0.5, 1e-30, 1e30, 1e308, -1e308)
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"a": 1}, [0] * 100, {"": {}})
_WORDS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "9" * 30,
    "9" * 5000,
    "[" * 70 + "]" * 70,
    "[" * 5000,
    '{"a":' * 5000,
)


def mutated(random: Random, document: Any) -> bytes:
    """A JSON document with a mutation of its values, its structure or its bytes, as text."""
    document = copy.deepcopy(document)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if places:
            _change(random, *random.choice(places), document)
    text = json.dumps(document)
    kind = random.random()
    if kind < 0.1:
        text = _with_word(random, text)
    content = text.encode("utf-8", "surrogatepass")
    return damaged(random, content) if kind > 0.9 else content


def damaged(random: Random, content: bytes) -> bytes:
    """``content`` with some bytes removed, flipped, doubled or replaced."""
    if not content:
        return random.randbytes(random.randrange(20))
    place = random.randrange(len(content))
    match random.randrange(5):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]
        case 2:
            return content[:place] + content[place : place + random.randrange(1, 200)] + content[place:]
        case 3:
            return content[:place] + random.randbytes(random.randrange(1, 9)) + content[place:]
        case _:
            return content[:place] + content[place + random.randrange(1, 200) :]


def _with_word(random: Random, text: str) -> str:
    """Replace a number by a literal that Python's writer would not write."""
    digits = [index for index, letter in enumerate(text) if letter.isdigit()]
    if not digits:
        return random.choice(_WORDS)
    place = random.choice(digits)
    return text[:place] + random.choice(_WORDS) + text[place + 1 :]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document with each of its keys or indices."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return
    for key, each in list(items):
        yield value, key
        yield from _places(each)


def _change(random: Random, place: Any, key: Any, document: Any) -> None:
    match random.randrange(6):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place[random.choice((*_TEXTS[:5], key + "x"))] = place.get(key)
        case 2:
            place[key] = copy.deepcopy(random.choice(list(_places(document)))[0])
        case 3:
            place[key] = random.choice(_TEXTS)
        case 4:
            place[key] = copy.deepcopy(random.choice(_OTHERS))
        case _:
            place[key] = random.choice(_NUMBERS)


def linked_copy(source: Path, target: Path) -> Path:
    """Copy a folder with hard links for files, which must be replaced and never written to."""
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, place)
    return target


def replace(file: Path, content: bytes) -> None:
    """Replace a hard link by a new file."""
    file.unlink()
    file.write_bytes(content)


def run(arguments: Sequence[object]) -> int:
    """Call the command line and check what every command promises; returns the exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(each) for each in arguments])
    message = err.getvalue()
    assert DEFECT not in message, message
    assert code in ALLOWED or "computed NaN or infinity" in message, f"exit code {code}: {message}"
    assert len(message) < 20_000, f"a message of {len(message)} characters: {message[:500]}"
    return code
