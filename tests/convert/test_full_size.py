"""A model of the published size is converted in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Prints the peak of resident memory, in bytes.
CONVERT = """
import resource, sys
from pathlib import Path
from vinograph.convert import convert

convert(sys.argv[1], Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def run(*arguments: object) -> str:
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": ""}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


@pytest.mark.large
def test_the_peak_of_memory(tmp_path: Path) -> None:
    run(ROOT / "benchmarks" / "full_size.py", "wuerstchen", tmp_path / "checkpoint", "--image-encoder")
    peak = int(run("-c", CONVERT, tmp_path / "checkpoint", tmp_path / "bundle"))
    assert peak < 10e9, f"{peak / 1e9:.1f} GB"
