"""Small checkpoints and their bundles, which all tests of adapters share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import PIXART_256, SDXL_TINY, TINY, save_pixart, save_sdxl, save_wuerstchen
from vinograph.convert import convert
from vinograph.models import catalog
from vinograph.models.model import Model


@dataclass(frozen=True)
class Opened:
    """A checkpoint, its bundle in f32, both opened, and the networks that it was saved from."""

    home: Model
    bundle: Model
    models: Any


def opened(home: Path, folder: Path, models: Any) -> Opened:
    """Convert a saved checkpoint, and open it both ways."""
    return Opened(catalog.find(home), convert(home, folder / "bundle", weights="f32"), models)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A small SDXL, with as many layers on each level as the published ones: LDM's names number them all."""
    folder = tmp_path_factory.mktemp("adapted-sdxl")
    saved = save_sdxl(folder, replace(SDXL_TINY, layers=2))
    return opened(saved.home, folder, saved.models)


@pytest.fixture(scope="session")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A small PixArt."""
    folder = tmp_path_factory.mktemp("adapted-pixart")
    saved = save_pixart(folder, PIXART_256)
    return opened(saved.home, folder, saved.models)


@pytest.fixture(scope="session")
def wuerstchen(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A small Würstchen."""
    folder = tmp_path_factory.mktemp("adapted-wuerstchen")
    saved = save_wuerstchen(folder, TINY)
    return opened(saved.decoder, folder, saved.models)
