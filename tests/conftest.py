"""What several tests draw with: one small bundle of trivial graphs, and a process where torch can't be imported."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bundles import save_bundle
from tests.compiled_once import CompiledOnce, compiling_once
from vinograph import Pipeline

pytest_plugins = ("tests.memory", "tests.processors")

ABSENT = ("torch", "diffusers", "transformers", "nncf", "gradio", "safetensors")

_HOOK = f"""
import sys

ABSENT = {ABSENT!r}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the cache of whoever runs it, nor does a process that one starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VINOGRAPH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("VINOGRAPH_CACHE_LIMIT", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _not_flushed() -> Iterator[None]:
    """Files are left to the system, which outlives every test: waiting for the disk would show nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _frozen() -> None:
    """What all tests together import is not looked through for garbage: quantization collects it often."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Würstchen bundle whose components compute next to nothing. It is not to be changed."""
    return save_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path


@pytest.fixture(scope="session")
def tiny(tiny_bundle: Path) -> Pipeline:
    """The pipeline of it, in f32."""
    return Pipeline.from_pretrained(tiny_bundle, precision="f32")


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompiledOnce]:
    """The tests of a module compile equal graphs once, without a cache on the disk."""
    with compiling_once(tmp_path_factory.mktemp("compiled")) as compiled:
        yield compiled


@pytest.fixture(scope="session")
def without_torch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code with arguments in a fresh process where importing `ABSENT` fails, as where they are not installed."""

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src"), "PYTHONWARNINGS": "error"}
        command = [sys.executable, "-c", _HOOK + code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run
