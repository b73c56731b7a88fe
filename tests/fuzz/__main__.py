"""Fuzzes for a given time: ``python -m tests.fuzz --minutes 30``.

Every attempt has a seed of its own. A failure prints the command that repeats it, and the others go
on.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

from tests.fuzz import Attempt, Target, targets


def run_one(target: Target, attempt: Attempt, seed: int, folder: Path) -> bool:
    """Make one attempt in an empty folder; returns whether it found no fault."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        attempt(Random(f"{target.name} {seed}"), folder)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a Rust library's panic is no Exception
        traceback.print_exc()
        print(f"FAILED  python -m tests.fuzz --target {target.name} --seed {seed} --attempts 1", flush=True)
        return False
    return True


def main() -> int:
    """Parse the options, fuzz, and print the number of attempts on each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, over all targets together")
    parser.add_argument("--target", action="append", help="only this target; may be given again")
    parser.add_argument("--seed", type=int, help="the first attempt's seed; the next one has the next. Default: random")
    parser.add_argument("--attempts", type=int, help="this many attempts of each target instead of minutes")
    options = parser.parse_args()
    chosen = [each for each in targets() if not options.target or each.name in options.target]
    if not chosen:
        parser.error(f"there is no such target; there are {', '.join(each.name for each in targets())}")
    first = secrets.randbelow(2**32) if options.seed is None else options.seed
    made, failed = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        for index, target in enumerate(chosen):
            attempt = target.prepare(Path(place) / f"{index}-prepared")
            end = time.monotonic() + options.minutes * 60 / len(chosen)
            seed = first
            while seed - first < options.attempts if options.attempts else time.monotonic() < end:
                made[target.name] += 1
                failed[target.name] += not run_one(target, attempt, seed, Path(place) / "attempt")
                seed += 1
            print(
                f"{target.name}: {made[target.name]} attempts from seed {first}, {failed[target.name]} failed",
                flush=True,
            )
    return 1 if failed.total() else 0


if __name__ == "__main__":
    sys.exit(main())
