"""The text "parameters" of A1111's pictures: a prompt, a negative prompt and a line of fields.

    a red house
    Negative prompt: blurred
    Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 1024x1024

A1111, ComfyUI's nodes and most pages for pictures read it. A value with a comma, a colon or a line
break is written as a JSON string. Reading takes time in proportion to the text, whatever is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_NEGATIVE = "Negative prompt:"
_FEWEST_FIELDS = 3  # fewer in the last line, and it is a part of the prompt
_KEY = re.compile(r"\w[\w \-/]{1,80}")
_QUOTED = re.compile(r'\s*("(?:[^"\\]|\\.)+")\s*(?:,|$)')
_NEXT = re.compile(r"[,:]")


@dataclass(frozen=True)
class Infotext:
    """What the text says: ``fields`` are the values of its last line by their names."""

    prompt: str = ""
    negative_prompt: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def format_infotext(infotext: Infotext) -> str:
    """The text of ``infotext``, as A1111 writes it."""
    negative = f"\n{_NEGATIVE} {infotext.negative_prompt}" if infotext.negative_prompt else ""
    fields = ", ".join(f"{name}: {_quoted(value)}" for name, value in infotext.fields.items())
    return f"{infotext.prompt}{negative}\n{fields}".strip()


def parse_infotext(text: str) -> Infotext:
    """Read a text as A1111 reads it. Any text is one: at worst it is a prompt alone."""
    *lines, last = text.strip().split("\n")
    fields = list(_fields(last))
    if len(fields) < _FEWEST_FIELDS:
        lines, fields = [*lines, last], []
    parts: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            negative, line = True, line.removeprefix(_NEGATIVE).strip()
        parts[negative].append(line)
    prompt, negative_prompt = ("\n".join(each) for each in parts)
    return Infotext(prompt, negative_prompt, dict(fields))


def _quoted(value: str) -> str:
    plain = value == value.strip() and not any(each in value for each in ',\n:"')
    return value if plain else json.dumps(value, ensure_ascii=False)


def _fields(line: str) -> Iterator[tuple[str, str]]:
    """Names and values in a line; what has no name is passed over."""
    position = 0
    while (mark := _NEXT.search(line, position)) is not None:
        name = line[position : mark.start()].strip()
        position = mark.end()
        if mark[0] == "," or _KEY.fullmatch(name) is None:
            continue
        quoted = _QUOTED.match(line, position)
        if quoted is not None:
            yield name, _unquoted(quoted[1])
            position = quoted.end()
            continue
        end = line.find(",", position)
        end = len(line) if end < 0 else end
        yield name, line[position:end].strip()
        position = end + 1


def _unquoted(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text
