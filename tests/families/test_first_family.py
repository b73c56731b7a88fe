"""docs/first-family.md: its examples are the toy family's code, and its commands do what it says."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.family_docs import FILE, main, names_of
from tests.families.test_new_family import LAST_LINE, LINE, REGISTRY, SOURCE, TOY

ROOT = Path(__file__).parents[2]
PAGE = FILE.read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The page's examples in one language, in order."""
    return [each["code"] for each in BLOCK.finditer(PAGE) if each["language"] == language]


def shell(line: str, folder: Path) -> str:
    """Run a line of the page in a folder, with its package before the installed one. Returns what it printed."""
    more = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)]),
        "VINOGRAPH_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        line,
        shell=True,
        cwd=folder,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_examples_are_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_every_example_says_where_it_comes_from() -> None:
    assert len(blocks("python")) == len(re.findall(r"^<!-- .+ -->\n```python$", PAGE, flags=re.MULTILINE))


@pytest.mark.parametrize("file", sorted(TOY.glob("[a-z]*.py")), ids=lambda each: each.name)
def test_every_file_and_every_definition_is_shown(file: Path) -> None:
    assert f"### `{file.name}`" in PAGE
    examples = "\n".join(blocks("python"))
    text = file.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        for name in names_of(node):
            assert str(ast.get_source_segment(text, node)) in examples, f"{file.name}: {name}"


def test_the_line_is_the_one_that_the_tests_add() -> None:
    (difference,) = blocks("diff")
    assert difference == f" {LAST_LINE}+{LINE}"


def test_its_commands_add_a_family_and_remove_it(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "embedded")
    shutil.copytree(SOURCE, tmp_path / "src", ignore=ignored)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    before = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*.py"))
    registry = tmp_path / "src" / REGISTRY
    lines = [line for code in blocks("sh") for line in code.splitlines()]
    copying, *drawing, removing = [line for line in lines if not line.startswith(("source ", "python -m pytest"))]
    assert len(drawing) == 6
    shell(copying, tmp_path)
    registry.write_text(registry.read_text(encoding="utf-8").replace(LAST_LINE, LAST_LINE + LINE), encoding="utf-8")
    printed = "".join(shell(line, tmp_path) for line in drawing)
    assert "family toy" in " ".join(printed.split())
    for name in ("ripples.png", "boats.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (48, 48)
    shell(removing, tmp_path)
    assert sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*.py")) == before
    assert not (tmp_path / "ripples").exists()
