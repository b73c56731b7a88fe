"""docs/cli.md is the output of --help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_equals_the_help() -> None:
    arguments = [sys.executable, str(ROOT / "scripts" / "cli_docs.py"), "--check"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_every_command_has_a_section() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in (
        "generate",
        "reconstruct",
        "convert",
        "inspect",
        "verify",
        "models",
        "devices",
        "doctor",
        "cache",
        "web",
    ):
        assert f"\n## {name}\n" in page
