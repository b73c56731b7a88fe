"""What several tests draw with: one small bundle of trivial graphs, written once."""

from pathlib import Path

import pytest

from tests.bundles import save_bundle
from vinograph import Pipeline


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Würstchen bundle whose components compute next to nothing. It is not to be changed."""
    return save_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path


@pytest.fixture(scope="session")
def tiny(tiny_bundle: Path) -> Pipeline:
    """The pipeline of it, in f32."""
    return Pipeline.from_pretrained(tiny_bundle, precision="f32")
