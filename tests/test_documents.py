"""The commands in the documents: each names a script that is there, in a way that finds what it imports."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "training", "scripts")
TOLD_IN = [
    ROOT / "Makefile",
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(file for folder in FOLDERS for kind in ("*.md", "*.py") for file in (ROOT / folder).rglob(kind)),
]
OURS = "|".join(FOLDERS)
COMMAND = re.compile(rf"python (?:(?P<path>(?:{OURS})/[\w/]+\.py)|-m (?P<module>(?:{OURS})[\w.]+))")


def commands() -> set[tuple[str, str]]:
    """Every script's path, and whether it is run by its path or as a module."""
    found = set()
    for file in TOLD_IN:
        for match in COMMAND.finditer(file.read_text(encoding="utf-8")):
            path, module = match["path"], match["module"]
            found.add((path, "path") if path else (script_of(module.rstrip(".")), "module"))
    return found


def script_of(module: str) -> str:
    """The file that ``python -m`` runs."""
    place = module.replace(".", "/")
    return f"{place}/__main__.py" if (ROOT / place).is_dir() else f"{place}.py"


def imported(script: Path) -> set[str]:
    """The packages that a script imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_there_are_commands_of_both_kinds() -> None:
    assert {kind for _, kind in commands()} == {"path", "module"}


@pytest.mark.parametrize(("script", "kind"), sorted(commands()))
def test_a_command_finds_its_script_and_what_that_imports(script: str, kind: str) -> None:
    assert (ROOT / script).is_file()
    if kind == "path":  # Python then looks for packages beside the script, not in the project's root
        assert not imported(ROOT / script) & set(FOLDERS), f"run it by `python -m {script[:-3].replace('/', '.')}`"
