"""A short run of every fuzzer, always with the same seeds."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import Target, targets


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_no_attempt_finds_a_fault(target: Target, tmp_path: Path) -> None:
    attempt = target.prepare(tmp_path / "prepared")
    for seed in range(target.attempts):
        folder = tmp_path / f"attempt-{seed}"
        folder.mkdir()
        attempt(Random(f"{target.name} {seed}"), folder)
