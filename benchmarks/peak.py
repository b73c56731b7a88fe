"""Measures a command's minutes and its peaks of memory: all, anonymous, and mapped from files.

python benchmarks/peak.py vinograph convert full/pixart pixart-f16
"""

from __future__ import annotations

import subprocess
import sys
import time

from vinograph.benchmark.memory import measure_peaks


def main() -> None:
    """Run the command and print its minutes and peaks."""
    command = sys.argv[1:]
    start = time.perf_counter()
    with subprocess.Popen(command) as child, measure_peaks(child.pid) as peaks:
        code = child.wait()
    minutes = (time.perf_counter() - start) / 60
    kinds = {"resident": peaks.resident, "anonymous": peaks.anonymous, "mapped from files": peaks.mapped}
    sizes = ", ".join(f"{size / 1e9:.2f} GB {kind}" for kind, size in kinds.items())
    print(f"{minutes:.1f} minutes; peaks, of different moments: {sizes}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
