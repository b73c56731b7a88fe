"""Trigger words in an adapter's metadata, as training programs write them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

_PHRASES = (
    "modelspec.trigger_phrase",
    "modelspec.trigger_word",
    "ss_trigger_words",
    "trigger_words",
    "instance_prompt",
)
_TAGS = "ss_tag_frequency"
_MOST = 20
_LONGEST = 200


def words(metadata: Mapping[str, str]) -> list[str]:
    """The phrases that metadata name, else the tags of the training pictures, by frequency."""
    phrases = [part.strip() for name in _PHRASES for part in _texts(metadata.get(name, ""))]
    found = list(dict.fromkeys(part[:_LONGEST] for part in phrases if part))
    return found[:_MOST] or _tags(metadata.get(_TAGS, ""))


def _texts(text: str) -> list[str]:
    """The texts of a JSON list, or those between commas."""
    value = _parsed(text)
    if isinstance(value, list):
        return [each for each in value if isinstance(each, str)]
    return text.split(",")


def _tags(text: str) -> list[str]:
    """Tags by how often they occur in all data sets together."""
    counts = Counter[str]()
    tables = _parsed(text)
    for table in tables.values() if isinstance(tables, dict) else ():
        for tag, count in table.items() if isinstance(table, dict) else ():
            if isinstance(count, int) and tag.strip():
                counts[tag.strip()[:_LONGEST]] += count
    return [tag for tag, _ in counts.most_common(_MOST)]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
