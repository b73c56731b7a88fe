"""Copy the toy family's code into docs/first-family.md again; with ``--check``, only compare.

python -m scripts.family_docs [--check]

A comment in front of an example says where it comes from: a file, or the definitions in it by name.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.generated import write_or_compare

_ROOT = Path(__file__).resolve().parent.parent
FILE = _ROOT / "docs" / "first-family.md"
_EXAMPLE = re.compile(
    r"^<!-- (?P<path>[\w/]+\.py)(?:: (?P<names>[\w, ]+))? -->\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


def main(argv: Sequence[str]) -> int:
    """Write the page, or with ``--check`` print how it differs. Returns the exit code."""
    return write_or_compare(FILE, page(FILE.read_text(encoding="utf-8")), argv)


def page(text: str) -> str:
    """The page with every example as the code has it now."""

    def current(found: re.Match[str]) -> str:
        names = [name.strip() for name in (found["names"] or "").split(",") if name.strip()]
        comment = found[0].partition("\n")[0]
        return f"{comment}\n```python\n{excerpt(_ROOT / found['path'], names)}```"

    return _EXAMPLE.sub(current, text)


def excerpt(file: Path, names: Sequence[str]) -> str:
    """A file without its first docstring, or the part of it from the first to the last of these definitions."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    body = ast.parse(text).body
    if names:
        places = [_lines_of(body, name, file) for name in names]
        first, last = min(first for first, _ in places), max(last for _, last in places)
        return "".join(lines[first - 1 : last])
    assert isinstance(body[0], ast.Expr)
    return "".join(lines[body[0].end_lineno or 0 :]).lstrip("\n")


def _lines_of(body: Sequence[ast.stmt], name: str, file: Path) -> tuple[int, int]:
    """The first and the last line of a top-level definition, its decorators among them."""
    for node in body:
        if name in names_of(node):
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
            return first, node.end_lineno or node.lineno
    raise LookupError(f"{file.name} defines no {name}; name another in {FILE.name}")


def names_of(node: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
