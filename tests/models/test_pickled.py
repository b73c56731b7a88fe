"""Tensors that PyTorch saved are read as PyTorch reads them, and no code of a file is run."""

from __future__ import annotations

import collections
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.pickled import read_pickled

KEY = "effnet_state_dict"


def saved(folder: Path, state: Any, **others: Any) -> Path:
    file = folder / "model.pt"
    torch.save({KEY: state, **others}, file)
    return file


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    both = torch.randn(6, 4)
    return collections.OrderedDict(
        {
            "matrix": torch.randn(5, 7),
            "half": torch.randn(3, 2, 2).half(),
            "bfloat": torch.randn(9).bfloat16(),
            "double": torch.randn(2).double(),
            "count": torch.tensor(41),
            "empty": torch.zeros(0, 3),
            "upper": both[:3],
            "lower": both[3:],
            "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        }
    )


def test_every_tensor_is_the_same(tmp_path: Path) -> None:
    file = saved(tmp_path, state(), step=3, note="not looked at")
    found = read_pickled(file, KEY)
    assert found.keys() == state().keys()
    for name, tensor in state().items():
        plain = tensor.detach()
        expected = plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain
        assert found[name].shape == tuple(tensor.shape), name
        np.testing.assert_array_equal(found[name].array(), expected.numpy(), err_msg=name)
    assert [found[name].dtype for name in ("matrix", "half", "bfloat", "count")] == ["F32", "F16", "BF16", "I64"]


class Runs:
    """Unpickling this runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("where", [KEY, "elsewhere"])
def test_nothing_is_run(tmp_path: Path, where: str) -> None:
    trap = tmp_path / "ran"
    contents: dict[str, Any] = {KEY: state(), where: Runs(f"touch {trap}")}
    torch.save(contents, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"asks for (posix|nt)\.system"):
        read_pickled(tmp_path / "model.pt", KEY)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "torch.load", "torch._utils._rebuild_sparse_tensor", "os.system"])
def test_every_other_name_is_refused(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    description = pickle.PROTO + b"\x02" + b"c" + f"{module}\n{attribute}\n".encode() + pickle.STOP
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", description)
    with pytest.raises(ModelError, match=f"asks for {name}"):
        read_pickled(tmp_path / "model.pt", KEY)


def test_tensors_out_of_order_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, {"turned": torch.randn(3, 4).T})
    with pytest.raises(ModelError, match="don't lie in order"):
        read_pickled(file, KEY)


@pytest.mark.parametrize("contents", [{}, {"other": 1}, {KEY: 3}, {KEY: {"a": 3}}, {KEY: {}}, [1, 2]])
def test_where_there_are_no_tensors(tmp_path: Path, contents: Any) -> None:
    torch.save(contents, tmp_path / "model.pt")
    with pytest.raises(ModelError, match="tensors under"):
        read_pickled(tmp_path / "model.pt", KEY)


def test_what_is_no_archive(tmp_path: Path) -> None:
    torch.save({KEY: state()}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("old.pt", "empty.pt"):
        with pytest.raises(DamagedModelError, match="not an archive"):
            read_pickled(tmp_path / name, KEY)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, state())
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for each in source.namelist():
            target.writestr(each, source.read(each))
    with pytest.raises(DamagedModelError, match="compressed"):
        read_pickled(tmp_path / "small.pt", KEY)


def test_any_damage_is_an_error_of_ours_or_harmless(tmp_path: Path) -> None:
    whole = saved(tmp_path, state()).read_bytes()
    rng = random.Random(5)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            found = read_pickled(tmp_path / "damaged.pt", KEY)
        except (ModelError, DamagedModelError):
            continue
        for tensor in found.values():
            tensor.array().sum(dtype=np.float64)
