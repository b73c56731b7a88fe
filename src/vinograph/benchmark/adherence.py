"""Adherence: whether pictures of the picture-book world show what their prompts say.

The probe and the world's grammar lie in ``training/`` of a checkout. The package doesn't import
that, so it runs there in a process of its own.
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
    """``count`` prompts of scenes that no model was trained on."""
    texts: list[str] = json.loads(_run(root, "prompts", str(count)))
    return texts


def judge(root: Path, pictures: Path, count: int) -> dict[str, Any]:
    """The probe's judgement of the pictures ``0.npy``, ``1.npy``, … of the first ``count`` prompts.

    ``mean`` is the share of details that are right, ``whole`` the share of pictures without a wrong
    one.
    """
    scores: dict[str, Any] = json.loads(_run(root, "judge", str(count), str(pictures.resolve())))
    return scores


def _run(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "training.judge", *arguments]
    return subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
