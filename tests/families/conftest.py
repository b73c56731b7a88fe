"""Pipelines of trivial bundles, whose sessions are watched. A module says by a fixture ``tiny_family`` of which family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache

import pytest

from tests.families.tiny import FAMILIES, Tiny, Watched
from vinograph import Pipeline
from vinograph.families.contract import LRUCache


@pytest.fixture(scope="session")
def _open(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pipeline]:
    @cache
    def open_one(name: str) -> Pipeline:
        path = FAMILIES[name].save(tmp_path_factory.mktemp(name) / "tiny").path
        return Pipeline.from_pretrained(path, precision="f32")

    return open_one


@pytest.fixture
def opened(tiny_family: Tiny, _open: Callable[[str], Pipeline]) -> Pipeline:
    """The pipeline of the family's bundle, which is not to be changed."""
    return _open(next(name for name, each in FAMILIES.items() if each is tiny_family))


@pytest.fixture
def watched(opened: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The pipeline's sessions, watched while the test runs; nothing is remembered from the tests before."""
    watched = Watched(opened._components.sessions)
    parts = dataclasses.replace(opened._components, sessions=watched, cache=LRUCache())
    monkeypatch.setattr(opened, "_components", parts)
    return watched


@pytest.fixture
def pipe(opened: Pipeline, watched: Watched) -> Pipeline:
    """The pipeline, watched."""
    return opened
