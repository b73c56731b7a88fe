"""What the server's tests share: one real server, and a service that answers at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.serving import MODEL, QuickService, Running, configured, running, serving
from vinograph import Pipeline
from vinograph.serve.contract import ModelInfo


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A real server with storybook-sdxl, without keys. Tests leave it as they found it."""
    with running("--model", MODEL) as started:
        yield started


@pytest.fixture(scope="session")
def model_info() -> ModelInfo:
    """What a service says of storybook-sdxl."""
    pipe = Pipeline.from_pretrained(MODEL)
    manifest = pipe.model.manifest
    return ModelInfo(MODEL, MODEL, manifest.family, True, 1_700_000_000, pipe.calls["generate"].takes, manifest.sizes)


@pytest.fixture
def quick(model_info: ModelInfo) -> QuickService:
    """A service that draws at once."""
    return QuickService(model_info)


@pytest.fixture
def address(quick: QuickService) -> Iterator[str]:
    """The application around it, without keys."""
    with serving(quick, configured()) as found:
        yield found
