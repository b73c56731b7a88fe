"""The documents' shell commands run in a fresh clone, page by page, except those that are listed here with a reason."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from tests.test_documents import ROOT, RUN_IN, assert_drawn, blocks, draws_ours

# What is not run, and why. Everything else is.
NOT_RUN: Mapping[str, str] = {
    r"^(make|pip|python3 -m venv|source)\b": "installs packages",
    r"^vinograph (web|serve)\b": "runs until Ctrl-C; tests/web and tests/serve start it",
    r"^curl\b": "asks the server; tests/serve does",
    r"^vinograph pull\b": "fetches from the hub; tests/models does, from a hub of its own",
    r"\b(stabilityai|PixArt-alpha|warp-ai)/": "reads a published model",
    r"/models/|path/to/|PixArt-XL-2|pixart-256|easynegative|model_v2_stage_b": "reads a file of the reader's",
    r"\bpython (-m )?(benchmarks|training)\b": "measures or trains for minutes; tests/benchmark and tests/training do",
    r"^vinograph benchmark\b.*sdxl-turbo": "measures for minutes",
    r"\bfull/|^vinograph convert training/checkpoints/": "reads what a command above made in minutes",
    r"^mkdir /sys/": "needs root",
    r"\bpytest\b": "is among the tests already",
    r"^(vinograph check sdxl-turbo|vinograph .*sdxl-turbo-int8)": "reads the published model",
}
# Pages whose prompts are what their pictures show.
DRAWN = {"README.md", "start.md", "inpainting.md", "storybook.md"}


def commands(file: Path) -> list[str]:
    """Every shell command of a document, in one line."""
    lines = [line for code in blocks(file, "sh") for line in code.replace("\\\n", " ").splitlines()]
    return [line for line in lines if shlex.split(line, comments=True)]


def reason(command: str) -> str | None:
    """Why a command is not run, or None if it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), None)


PAGES = [each for each in RUN_IN if any(reason(command) is None for command in commands(each))]


def test_most_pages_have_commands_that_run() -> None:
    run = [command for page in PAGES for command in commands(page) if reason(command) is None]
    assert len(run) >= 45
    assert {"README.md", "start.md", "inpainting.md", "low-memory.md", "offline.md"} <= {each.name for each in PAGES}


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_each_reason_is_needed(pattern: str) -> None:
    assert any(re.search(pattern, command) for page in RUN_IN for command in commands(page))


@pytest.fixture(scope="module")
def first_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git has, with quick models for the published ones and the reader's pictures."""
    folder = tmp_path_factory.mktemp("clone")
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name in ("photo.jpg", "mask.png"):
        Image.new("RGB", (512, 512), "white").save(folder / name)
    models = folder / "build" / "models"
    save_bundle(models / "wuerstchen")
    for name in ("pixart", "pixart-lcm"):
        save_pixart_bundle(models / name, sample_size=128)
    for name in ("sdxl", "sdxl-turbo"):
        save_sdxl_bundle(models / name)
    return folder


@pytest.fixture
def clone(first_clone: Path) -> Iterator[Path]:
    """The copy, without what the commands of other pages wrote into it."""
    before = set(first_clone.iterdir())
    yield first_clone
    for each in set(first_clone.iterdir()) - before:
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def variables(clone: Path) -> dict[str, str]:
    """The environment of a shell in which `vinograph` and `python` are those of the tests, and nothing is fetched."""
    programs = clone / "build" / "bin"
    programs.mkdir(exist_ok=True)
    for name, arguments in (("vinograph", " -m vinograph"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable}{arguments} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(clone / "src"),
        "VINOGRAPH_MODELS": str(clone / "build" / "models"),
        "VINOGRAPH_CACHE": str(clone / "build" / "cache"),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda each: each.name)
def test_commands_run_one_after_the_other_in_a_fresh_clone(page: Path, clone: Path) -> None:
    run = [command for command in commands(page) if reason(command) is None]
    script = "\n".join(["set -euo pipefail", *run])
    done = subprocess.run(
        ["bash", "-xc", script], cwd=clone, env=variables(clone), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for words in (shlex.split(command, comments=True) for command in run if page.name in DRAWN):
        if draws_ours(words):
            assert_drawn(words[2], str(clone / words[words.index("--output") + 1]))
