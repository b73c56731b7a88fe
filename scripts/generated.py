"""Files that a script writes from something else: written, or with ``--check`` compared."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def write_or_compare(file: Path, text: str, argv: Sequence[str]) -> int:
    """Write ``text`` to ``file``, or with ``--check`` in ``argv`` print how it differs. Returns the exit code."""
    if "--check" not in argv:
        file.write_text(text, encoding="utf-8")
        return 0
    there = file.read_text(encoding="utf-8") if file.exists() else ""
    names = (str(file.relative_to(_ROOT)), "as it would be written")
    difference = list(difflib.unified_diff(there.splitlines(), text.splitlines(), *names, lineterm=""))
    if difference:
        print("\n".join([*difference, "", "run: make docs"]))
    return 1 if difference else 0
