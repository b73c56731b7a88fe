"""The command line as a user has it: called in this process where starting one would only cost time, else in its own."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import save_bundle
from vinograph.cli import main
from vinograph.models.bundle import Bundle

SOURCE = Path(__file__).parents[2] / "src"

HEAVY = ("torch", "diffusers", "transformers", "safetensors", "nncf", "gradio")
WITHOUT_HEAVY = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))"

# A child that was started with SIGINT ignored, as by a shell's &, would never see Ctrl-C.
_AS_VINOGRAPH = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "vinograph"
runpy.run_module("vinograph", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it is."""
        record: dict[str, Any] = json.loads(self.out)
        return record

    def fails(self, code: int, *words: str) -> None:
        """It ended with ``code``, printed nothing as a result, and a message, not a traceback, with all ``words``."""
        assert self.code == code, self.err
        assert self.out == ""
        assert "Traceback" not in self.err
        message = self.err[self.err.index("error: ") :]
        assert not [word for word in words if word not in message], message


Run = Callable[..., Outcome]


def files_here() -> list[str]:
    """The names in the current folder, hidden ones too."""
    return sorted(each.name for each in Path().iterdir())


@pytest.fixture(autouse=True)
def _clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, no models but those that a test makes, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.fixture
def vinograph(capfd: pytest.CaptureFixture[str]) -> Run:
    """``vinograph("generate", "a house", "--steps", 2)`` in this process."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(each) for each in arguments])
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


def command(*arguments: object, first: str = "", warnings: str = "error") -> list[str]:
    """The command line of a process; the code ``first`` runs before anything of ours is imported."""
    return [sys.executable, "-W", warnings, "-c", first + _AS_VINOGRAPH, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with our source on the path."""
    return {**os.environ, "PYTHONPATH": str(SOURCE), **more}


def in_process(*arguments: object, first: str = "", **more: str) -> Outcome:
    """Run a command in a process of its own, to its end."""
    done = subprocess.run(
        command(*arguments, first=first), env=environment(**more), capture_output=True, timeout=120, check=False
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def running(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, killed at the end of the block if it still runs."""
    env = environment(PYTHONUNBUFFERED="1")
    with subprocess.Popen(arguments, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Wait until the process tells a line with these words."""
    assert process.stderr is not None
    seen = ""
    while words not in seen:
        seen = process.stderr.readline()
        assert seen, "it ended before it was to be killed"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A whole bundle, for reading only."""
    return save_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header says so, without the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
