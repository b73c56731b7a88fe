"""Small bundles and checkpoints to measure, and the command."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import save_pixart_bundle, save_sdxl_bundle
from tests.cli.conftest import Outcome, _clean_place, vinograph  # noqa: F401  # fixtures
from vinograph.models.bundle import Bundle

Measure = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models are tiny: threads would only wait for each other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save_sdxl_bundle(tmp_path_factory.mktemp("benchmark") / "tiny-sdxl")


@pytest.fixture(scope="session")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save_pixart_bundle(tmp_path_factory.mktemp("benchmark") / "tiny-pixart")


@pytest.fixture
def measure(vinograph: Callable[..., Outcome]) -> Measure:  # noqa: F811  # the fixture
    """What ``vinograph benchmark … --json`` measured."""

    def run(*arguments: object) -> dict[str, Any]:
        done = vinograph("benchmark", *arguments, "--json")
        assert done.code == 0, done.err
        return done.record

    return run


@pytest.fixture
def pretender(tmp_path: Path) -> Callable[[str], str]:
    """An interpreter that checks well, and runs ``code`` where a system would draw."""

    def make(code: str) -> str:
        program = tmp_path / "draws.py"
        program.write_text(
            "import json, os, signal, sys, time\n"
            "def say(event, **fields):\n"
            "    print(json.dumps({'event': event, **fields}), flush=True)\n"
            "if sys.argv[2] == 'check':\n"
            "    say('checked', missing=[], versions={})\n"
            "    sys.exit()\n"
            "task = json.load(sys.stdin)\n" + code
        )
        file = tmp_path / "python"
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return str(file)

    return make


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What looks like one from outside."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    return folder
