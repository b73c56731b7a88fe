"""Published weights are checked before use: errors name the file and the tensor."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.convert.conftest import edit_header
from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.safetensors import choose_weights, read_header, read_headers, shards


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, file)
    return file


def test_a_sound_file(file: Path) -> None:
    records = read_header(file)
    assert {name: (each.dtype, each.shape) for name, each in records.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("BF16", (4,)),
    }


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_tensors_are_read_in_every_type(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"odd": torch.tensor([True]), "x": torch.tensor([[0, 1], [1, 1]]).to(dtype), "scalar": torch.tensor(1.5)}
    save_file(tensors, tmp_path / "x.safetensors")
    records = read_header(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        record, plain = records[name], tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
        assert record.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(record.array(), plain.numpy(), strict=True)


def test_reading_gives_what_mapping_gives_and_never_changes_the_file(tmp_path: Path) -> None:
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
    tensors = {str(kind): torch.linspace(-3, 3, 12).reshape(3, 4).to(kind) for kind in kinds}
    save_file({**tensors, "none": torch.ones(0, 4), "one": torch.tensor(2.0)}, tmp_path / "a.safetensors")
    for record in read_header(tmp_path / "a.safetensors").values():
        mapped, values = record.array(), record.read()
        assert values.dtype == mapped.dtype
        assert np.array_equal(values, mapped)
        values[...] = 1
        assert np.array_equal(record.read(), mapped)


def test_f32_is_mapped_not_copied(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"x": torch.ones(1000)}, file)
    record = read_header(file)["x"]
    mapped, spoilt = record.array(), record.array()
    spoilt *= 2
    assert mapped.sum() == record.array().sum() == 1000, "writing to a tensor changed the file"
    with file.open("r+b") as stream:
        stream.seek(record.begin)
        stream.write(np.zeros(1000, np.float32).tobytes())
    assert mapped.sum() == 0


@pytest.mark.parametrize("length", [0, 5, 8, 9, 60])
def test_cut_within_the_header(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DamagedModelError, match=r"model\.safetensors"):
        read_header(file)


def test_cut_within_a_tensor(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedModelError, match=r"model\.safetensors is cut short: the tensor b"):
        read_header(file)


def test_a_header_longer_than_the_file(file: Path) -> None:
    content = file.read_bytes()
    for length in (len(content), 2**40, 2**64 - 1):
        file.write_bytes(struct.pack("<Q", length) + content[8:])
        with pytest.raises(DamagedModelError, match="header claims"):
            read_header(file)


@pytest.mark.parametrize(
    "header", [b"not JSON", b"[1, 2]", b"{" * 5000, b'{"a": 1, "a": 2}', b'{"\xff": 1}', b"[" * 200_000]
)
def test_a_header_that_is_no_json_object(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DamagedModelError, match="its header"):
        read_header(file)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"dtype": "F31"}, "unknown"),
        ({"shape": [2, 4]}, "bytes"),
        ({"shape": [-2, -3]}, "garbles"),
        ({"shape": [2.0, 3.0]}, "garbles"),
        ({"shape": "2x3"}, "garbles"),
        ({"data_offsets": [0, 10**12]}, "bytes"),
        ({"data_offsets": [24, 0]}, "bytes"),
        ({"data_offsets": [0]}, "garbles"),
        ({"shape": [2**46], "data_offsets": [0, 2**48]}, "cut short"),
        ({"shape": [2**70], "data_offsets": [0, 2**72]}, "not JSON"),
        ({"shape": [1] * 9}, "garbles the tensor a: shape"),
        ({"dtype": ["F32"]}, "garbles the tensor a: dtype"),
        ({"dtype": {}}, "garbles the tensor a: dtype"),
        ({"data_offsets": [8, 32]}, "overlaps|gap|cut short"),
        ({"data_offsets": None}, "garbles"),
    ],
)
def test_a_garbled_entry(file: Path, entry: dict[str, Any], fault: str) -> None:
    edit_header(file, lambda header: header["a"].update(entry))
    with pytest.raises(DamagedModelError, match=fault) as caught:
        read_header(file)
    assert "model.safetensors" in str(caught.value)


def test_an_entry_that_is_no_object(file: Path) -> None:
    edit_header(file, lambda header: header.update(a=5))
    with pytest.raises(DamagedModelError, match="tensor a"):
        read_header(file)


def test_overlapping_tensors(file: Path) -> None:
    edit_header(file, lambda header: header.update(c=header["b"]))
    with pytest.raises(DamagedModelError, match=r"tensor [bc] overlaps"):
        read_header(file)


def test_bytes_that_belong_to_no_tensor(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(DamagedModelError, match="4 bytes after the last tensor"):
        read_header(file)


@pytest.mark.parametrize("old", [True, False])
def test_a_pickle_under_the_name_of_safetensors(tmp_path: Path, old: bool) -> None:
    file = tmp_path / "model.safetensors"
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=not old)
    with pytest.raises(ModelError, match=r"model\.safetensors is a pickle"):
        read_header(file)


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        read_header(file)


def test_the_same_tensor_in_two_files(file: Path, tmp_path: Path) -> None:
    save_file({"b": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DamagedModelError, match="both hold the tensor b"):
        read_headers([file, tmp_path / "other.safetensors"])


class TestChoice:
    """Which of a folder's files hold its weights."""

    @pytest.mark.parametrize(
        ("listing", "chosen"),
        [
            (["model.safetensors", "model.fp16.safetensors", "model.bin"], "model.safetensors"),
            (["model.fp16.safetensors", "model.fp16.bin"], "model.fp16.safetensors"),
            (["model.safetensors.index.json", "model.fp16.safetensors"], "model.safetensors.index.json"),
            (["model.safetensors.index.fp16.json"], "model.safetensors.index.fp16.json"),
            (["model.fp16.safetensors.index.json"], "model.fp16.safetensors.index.json"),
            (["config.json", "fine_tuned.safetensors", "old.ckpt"], "fine_tuned.safetensors"),
            (["config.json"], "model.safetensors"),
        ],
    )
    def test_it_is_made(self, listing: list[str], chosen: str) -> None:
        assert choose_weights(listing, "model", "here") == chosen

    def test_pickles_are_refused(self) -> None:
        with pytest.raises(ModelError, match=r"here has its weights in a\.ckpt, model\.bin, pickled"):
            choose_weights(["model.bin", "a.ckpt", "config.json"], "model", "here")

    @pytest.mark.parametrize(
        "text", ["", "{}", "[]", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../x.safetensors"}}']
    )
    def test_a_damaged_index(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(DamagedModelError, match=r"index\.json"):
            shards(tmp_path / "index.json")
