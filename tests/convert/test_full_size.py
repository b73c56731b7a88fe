"""A model of the published size is converted in bounded memory."""

from __future__ import annotations

import os
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
    environment = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PATH": ""}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


@pytest.mark.large
@pytest.mark.parametrize(("family", "limit"), [("wuerstchen", 10e9), ("sdxl", 9e9)])
def test_peak_memory(tmp_path: Path, family: str, limit: float) -> None:
    options = ["--image-encoder"] if family == "wuerstchen" else []
    run("-m", "benchmarks.full_size", family, tmp_path / "checkpoint", *options)
    peak = int(run("-c", CONVERT, tmp_path / "checkpoint", tmp_path / "bundle"))
    assert peak < limit, f"{peak / 1e9:.1f} GB"


# Prints the peak of anonymous memory, in bytes: what is resident, less what is mapped from files,
# which the system can take back. It is looked at a thousand times a second.
CONVERT_AND_WATCH = """
import re, sys, threading
from pathlib import Path
from vinograph.convert import convert

done, peak = threading.Event(), 0

def watch():
    global peak
    while not done.wait(0.001):
        status = Path("/proc/self/status").read_text()
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1]) * 1024)

watcher = threading.Thread(target=watch)
watcher.start()
try:
    convert(sys.argv[1], Path(sys.argv[2]))
finally:
    done.set()
    watcher.join()
print(peak)
"""


@pytest.mark.large
def test_a_text_encoder_is_never_copied_whole(tmp_path: Path) -> None:
    """PixArt's, of 9.5 GB in half precision."""
    run("-m", "benchmarks.full_size", "pixart", tmp_path / "checkpoint")
    peak = int(run("-c", CONVERT_AND_WATCH, tmp_path / "checkpoint", tmp_path / "bundle"))
    assert peak < 6e9, f"{peak / 1e9:.1f} GB"
