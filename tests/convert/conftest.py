"""Checkpoints that the tests of conversion share. Those of session scope are for reading only."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.checkpoints import TINY, save_wuerstchen
from vinograph.convert import convert
from vinograph.models.bundle import Bundle

VQGAN = "vqgan/diffusion_pytorch_model.safetensors"


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills once, in one of the test processes, for all of them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return folder


@pytest.fixture(scope="session")
def combined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository with everything."""
    return once(tmp_path_factory, "combined", lambda folder: save_wuerstchen(folder, TINY)) / "wuerstchen"


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The decoder's and the prior's repositories, of the same weights as ``combined``."""
    folder = once(tmp_path_factory, "split", lambda folder: save_wuerstchen(folder, TINY, layout="split"))
    return folder / "wuerstchen", folder / "wuerstchen-prior"


@pytest.fixture(scope="session")
def undisturbed(combined: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of ``combined``."""
    folder = once(tmp_path_factory, "undisturbed", lambda folder: convert(combined, folder / "bundle"))
    return Bundle.open(folder / "bundle")


@pytest.fixture
def checkpoint(combined: Path, tmp_path: Path) -> Path:
    """A copy of ``combined`` that a test may damage."""
    return shutil.copytree(combined, tmp_path / "checkpoint")


def files_of(directory: Path) -> dict[str, bytes]:
    """Every file's contents."""
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def edit_json(file: Path, **changes: object) -> None:
    """Set keys of a JSON file; None removes one."""
    data = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({k: v for k, v in data.items() if v is not None}), encoding="utf-8")


def edit_header(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a safetensors file, its data as they are."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def edit_tensors(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors of a safetensors file."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    edit(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
