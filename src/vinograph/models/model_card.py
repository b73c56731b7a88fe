"""The front matter of a model card (README.md): the licence, and the prior of a decoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vinograph.schema import is_plain

CARD_FILE = "README.md"
CARD_KEYS = ("license", "license_name", "prior")

LONGEST_SCALAR = 200  # characters
_LARGEST_CARD = 4_000_000  # bytes
_LINE = re.compile(r"(license|license_name|prior):[ \t]*(.*)")
_LIST_ENTRY = re.compile(r"[ \t]*-[ \t]+(.*)")
_NO_SCALAR = "[]{}&*!|>%@`#,-?:"  # what other values than scalars begin with in YAML


def read_card(card: Path) -> dict[str, str]:
    """The values of :data:`CARD_KEYS` in a card's front matter, between its two `---` lines.

    A value is on the key's own line, or the first entry of a list below it. Only these lines are
    read, not YAML in general, whose nesting and references can cost any amount of time.
    """
    with card.open("rb") as file:
        lines = file.read(_LARGEST_CARD).decode("utf-8", "replace").lstrip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    values: dict[str, str] = {}
    end = next((index for index, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    for index, line in enumerate(lines[1:end], 1):
        if match := _LINE.fullmatch(line.rstrip()):
            entry = None if match[2] else _LIST_ENTRY.fullmatch(lines[index + 1].rstrip())
            value = _scalar(entry[1] if entry else match[2])
            if value is not None:
                values[match[1]] = value
    return values


def _scalar(text: str) -> str | None:
    """A short YAML scalar, or the first of a list in brackets; None where the text is neither."""
    if text.startswith("["):
        text = text[1:].partition("]")[0].partition(",")[0].strip()
    if text[:1] in ("'", '"'):
        text = text[1:].partition(text[0])[0]
    else:
        text = re.split(r"[ \t]#", text, maxsplit=1)[0].strip()
    plain = text not in ("", "~", "null") and text[0] not in _NO_SCALAR and is_plain(text)
    return text if plain and len(text) <= LONGEST_SCALAR else None


def licence_of(card: Mapping[str, str]) -> str | None:
    """The licence that a card's front matter names: its own name where the hub has none for it."""
    licence = card.get("license")
    return card.get("license_name", licence) if licence == "other" else licence
