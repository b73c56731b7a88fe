"""A model of the published size is converted in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_cache import save_cache

ROOT = Path(__file__).resolve().parents[2]

# Prints the peak of resident memory, in bytes.
CONVERT = """
import resource, sys
from pathlib import Path
from vinograph.convert import convert

convert(sys.argv[1], Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def run(*arguments: object, **more: object) -> str:
    environment = {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "PATH": "",
        **{k: str(v) for k, v in more.items()},
    }
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


# Prints the processor seconds of opening a model, and the process's anonymous memory after it.
OPEN = """
import re, sys, time
from pathlib import Path
from vinograph import Pipeline

begin = time.process_time()
pipe = Pipeline.from_pretrained(sys.argv[1])
seconds = time.process_time() - begin
status = Path("/proc/self/status").read_text()
print(seconds, int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1]) * 1024)
"""


@pytest.mark.large
def test_opening_a_single_file(tmp_path: Path) -> None:
    """6.9 GB, whose tokenizer is in the hub's cache."""
    # Imported here, since it imports torch: whoever only collects these tests does not wait for that.
    from tests.single_files import standard_vocabulary

    standard_vocabulary(tmp_path / "published" / "tokenizer")
    hub = save_cache(tmp_path / "hub", "someone/sdxl", tmp_path / "published")
    run("-m", "benchmarks.full_size", "sdxl-file", tmp_path / "it.safetensors")
    opened = run("-c", OPEN, tmp_path / "it.safetensors", HF_HUB_CACHE=hub, HF_HUB_OFFLINE=1)
    seconds, anonymous = map(float, opened.split())
    assert seconds < 2
    assert anonymous < 300e6, f"{anonymous / 1e6:.0f} MB"
