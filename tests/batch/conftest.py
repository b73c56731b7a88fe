"""A batch that was drawn without any disturbance, to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.batches import finish, pictures, start, write_prompts

COUNT = 16


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of prompts."""
    return write_prompts(tmp_path_factory.mktemp("batch") / "prompts.txt", COUNT)


@pytest.fixture(scope="session")
def undisturbed(prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that one process draws from them."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(start(prompts, out, "--workers", 1))
    drawn = pictures(out)
    assert len(drawn) == COUNT
    return drawn
