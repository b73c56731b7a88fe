"""Adherence: whether pictures of the picture-book world show what their prompts ask.

The probe that says so, and the world's grammar, are in ``training/`` of a checkout, which the package doesn't import:
they are asked in a process of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import vinograph

MISSING = "adherence needs a checkout of Vinograph: the probe is in its folder training"


def checkout() -> Path | None:
    """The checkout that this package is a part of, if it is one."""
    root = Path(vinograph.__file__).resolve().parents[2]
    return root if (root / "training" / "judge.py").is_file() else None


def prompts(root: Path, count: int) -> list[str]:
    """So many prompts, of scenes that no model was trained on."""
    told: list[str] = json.loads(_ask(root, "prompts", str(count)))
    return told


def judge(root: Path, pictures: Path, count: int) -> dict[str, Any]:
    """What the probe finds in the pictures ``0.npy``, ``1.npy``, … of those prompts: ``mean`` and ``whole``, shares."""
    found: dict[str, Any] = json.loads(_ask(root, "judge", str(count), str(pictures.resolve())))
    return found


def _ask(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "training.judge", *arguments]
    return subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
