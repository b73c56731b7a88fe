"""Some attempts of every fuzzer, always with the same seeds; and thirty times as many where all tests are run."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import Target, targets

SHARE = 3  # of the attempts, one of so many is made each time
LONGER = 10


def usual(target: Target) -> int:
    """The number of attempts that are made each time."""
    return max(5, target.attempts // SHARE)


def attempted(target: Target, seeds: range, folder: Path) -> None:
    """One attempt for each of the seeds, each in a folder of its own."""
    attempt = target.prepare(folder / "prepared")
    for seed in seeds:
        own = folder / f"attempt-{seed}"
        own.mkdir()
        attempt(Random(f"{target.name} {seed}"), own)


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_nothing_new_is_found(target: Target, tmp_path: Path) -> None:
    attempted(target, range(usual(target)), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_nor_by_attacking_for_longer(target: Target, tmp_path: Path) -> None:
    attempted(target, range(usual(target), LONGER * target.attempts), tmp_path)
