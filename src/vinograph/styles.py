"""Styles: prompt templates with a name, read from a CSV file as A1111 keeps them.

The columns are ``name``, ``prompt`` and ``negative_prompt``. A template that contains ``{prompt}``
takes the prompt there; another one is added after it, with a comma.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vinograph.errors import RequestError

FILE = "styles.csv"
_PLACE = "{prompt}"
_MOST = 1000  # styles in a file
_LARGEST = 1 << 20  # bytes of a file
_COLUMNS = ("name", "prompt", "negative_prompt")


@dataclass(frozen=True)
class Style:
    """A prompt template, and what it adds to the negative prompt."""

    name: str
    prompt: str
    negative_prompt: str = ""

    def apply(self, prompt: str, negative_prompt: str = "") -> tuple[str, str]:
        """The prompt and the negative prompt in this style."""
        return _filled(self.prompt, prompt), _filled(self.negative_prompt, negative_prompt)


def read_styles(file: Path) -> Mapping[str, Style]:
    """The styles of a file by their names, in the file's order; none where there is no file.

    Raises:
        RequestError: the file can't be read, or is no such table.
    """
    try:
        if file.stat().st_size > _LARGEST:
            raise RequestError(f"the styles in {file} take more than {_LARGEST >> 20} MB")
        content = file.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(io.StringIO(content), strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"the styles in {file} can't be read: {error}") from error
    head = [each.strip() for each in rows[0]] if rows else []
    if "name" not in head or "prompt" not in head:
        raise RequestError(f"the styles in {file} need a first line with the columns {', '.join(_COLUMNS)}")
    styles = [_style(dict(zip(head, row, strict=False))) for row in rows[1 : _MOST + 1]]
    return {each.name: each for each in styles if each.name}


def _style(row: Mapping[str, str]) -> Style:
    return Style(*(row.get(name, "").strip() for name in _COLUMNS))


def _filled(template: str, text: str) -> str:
    """The text in a template; after a comma where the template names no place for it."""
    if _PLACE in template:
        return template.replace(_PLACE, text).strip()
    return ", ".join(part for part in (text.strip(), template) if part)
