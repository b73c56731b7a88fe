"""Draw the odd pictures of docs/troubleshooting.md again, side by side.

python -m scripts.odd_pictures
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from vinograph.cli import main as vinograph

_ROOT = Path(__file__).resolve().parent.parent
_PAGE = _ROOT / "docs" / "troubleshooting.md"
_SHEET = _ROOT / "docs" / "pictures" / "troubleshooting.webp"
_SIDE, _COLUMNS, _GAP = 192, 4, 4


def main() -> None:
    """Run the page's commands in a temporary folder, and write the sheet."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for words in commands(_PAGE.read_text(encoding="utf-8")):
            if code := vinograph(words):
                sys.exit(code)
        files = [words[words.index("--output") + 1] for words in commands(_PAGE.read_text(encoding="utf-8"))]
        sheet([Image.open(file).convert("RGB") for file in files]).save(_SHEET, quality=85)


def commands(page: str) -> Iterator[list[str]]:
    """The words of each drawing command on the page, without the program's name."""
    for line in re.findall(r"^vinograph (generate .*)$", page, flags=re.MULTILINE):
        yield shlex.split(line)


def sheet(pictures: list[Image.Image]) -> Image.Image:
    """The pictures in rows of four, each scaled to the same square."""
    rows = -(-len(pictures) // _COLUMNS)
    cell = _SIDE + _GAP
    whole = Image.new("RGB", (_COLUMNS * cell - _GAP, rows * cell - _GAP), "white")
    for number, picture in enumerate(pictures):
        place = (number % _COLUMNS * cell, number // _COLUMNS * cell)
        whole.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), place)
    return whole


if __name__ == "__main__":
    main()
