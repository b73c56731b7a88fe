"""Measures a command's minutes and peak memory, in all and without what files back.

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
    resident, anonymous = (f"{each / 1e9:.2f} GB" for each in (peaks.resident, peaks.anonymous))
    print(f"{minutes:.1f} minutes; peak {resident} resident, {anonymous} of them not files", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
