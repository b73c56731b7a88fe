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


@pytest.fixture(scope="session")
def _quick_server(model_info: ModelInfo) -> Iterator[tuple[QuickService, str]]:
    service = QuickService(model_info)
    with serving(service, configured()) as address:
        yield service, address


@pytest.fixture
def quick(_quick_server: tuple[QuickService, str], model_info: ModelInfo) -> QuickService:
    """A service that draws at once, as new."""
    service, _ = _quick_server
    service.__init__(model_info)  # type: ignore[misc]
    return service


@pytest.fixture
def address(_quick_server: tuple[QuickService, str]) -> str:
    """The application around it, without keys."""
    return _quick_server[1]
