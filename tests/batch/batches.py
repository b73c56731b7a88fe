"""Batches to draw, and what they leave."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cli.conftest import command, environment

MODEL = "storybook-sdxl"
AS_DRAWN = ("--model", MODEL, "--size", "128x128", "--threads", "1")


def write_prompts(file: Path, count: int) -> Path:
    """A text file with so many prompts."""
    file.write_text("".join(f"a red house number {index} on a hill\n" for index in range(count)), encoding="utf-8")
    return file


def drawing(prompts: Path, out: Path, *more: object) -> list[str]:
    """The command that draws them."""
    return command("batch", prompts, out, *AS_DRAWN, "--json", *more)


def start(prompts: Path, out: Path, *more: object) -> subprocess.Popen[str]:
    """Start that command."""
    return subprocess.Popen(
        drawing(prompts, out, *more), env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the command says at its end, which is a good one."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    said: dict[str, Any] = json.loads(out)
    return said


def pictures(out: Path) -> dict[str, bytes]:
    """The pictures' files by their paths."""
    return {str(file.relative_to(out)): file.read_bytes() for file in out.glob("??/*")}


def manifest(out: Path, name: str = "manifest.jsonl") -> list[Mapping[str, Any]]:
    """The manifest's records."""
    return [json.loads(line) for line in (out / name).read_text(encoding="utf-8").splitlines()]


def left_over(out: Path) -> list[str]:
    """Files that were begun and not finished."""
    return [each.name for each in out.rglob("writing.*")]


def wait_for_pictures(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Wait until so many are there."""
    while len(list(out.glob("??/*.png"))) < count:
        assert process.poll() is None, "it ended before it was to be killed"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in found.stdout.split()]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and wasn't waited for doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until_gone(pids: list[int]) -> None:
    """Wait for the end of processes."""
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, pids
        time.sleep(0.05)
