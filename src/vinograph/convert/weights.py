"""Published weights: safetensors alone, checked before use, mapped from the file rather than read.

The format is https://github.com/huggingface/safetensors#format: eight bytes with the header's length, the header in
JSON, then the tensors without gaps. Everything here but :func:`load` works without PyTorch.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from vinograph.errors import DamagedModelError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

_LONGEST_HEADER = 100_000_000
_ITEM_SIZES: Mapping[str, int] = MappingProxyType(
    {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
)


@dataclass(frozen=True)
class TensorRecord:
    """Where one tensor lies: ``begin`` and ``end`` are bytes from the start of ``file``."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def weight_files(listing: Collection[str], folder: str, origin: str) -> list[str]:
    """The files among ``listing`` that hold the weights of the component in ``folder`` ("" for the top).

    Those in full precision where they are there, else the fp16 variant. For sharded weights the first name is the
    index, and the shards are what :func:`shards` finds in it.

    Raises:
        ModelError: there are none, or only pickled ones.
    """
    prefix = f"{folder}/" if folder else ""
    inside = {name.removeprefix(prefix) for name in listing if name.startswith(prefix)}
    inside = {name for name in inside if "/" not in name}
    for stem in ("diffusion_pytorch_model", "model"):
        for variant in ("", ".fp16"):
            whole, index = f"{stem}{variant}.safetensors", f"{stem}{variant}.safetensors.index.json"
            for name in (whole, index, f"{stem}.safetensors.index{variant}.json"):
                if name in inside:
                    return [prefix + name]
    others = sorted(name for name in inside if name.endswith(".safetensors"))
    if len(others) == 1:
        return [prefix + others[0]]
    pickles = sorted(prefix + name for name in inside if name.endswith(PICKLES))
    if pickles:
        raise ModelError(
            f"{origin} has its weights in {', '.join(pickles)}, which are pickled: loading them could run any code. "
            "Vinograph reads safetensors only; convert them first, or find a repository that has them"
        )
    raise ModelError(f"{origin} has no weights for {folder or 'this component'}: no {prefix}*.safetensors")


def shards(index: Path) -> list[str]:
    """The files beside ``index`` (…safetensors.index.json) that hold the tensors.

    Raises:
        DamagedModelError: it is not an index, or it names files elsewhere.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedModelError(f"{index} is not an index of weights ({error})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise DamagedModelError(f"{index} names {name!r}, which is not a safetensors file beside it")
    return names


def read_header(file: Path) -> dict[str, TensorRecord]:
    """The tensors of a safetensors file, by name, after checking that the file is what its header says.

    Raises:
        ModelError: the file is a pickle under another name.
        DamagedModelError: naming the file, and the tensor where one is at fault.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(9)
            length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
            text = start[8:] + stream.read(min(length, _LONGEST_HEADER) - 1) if length else b""
    except OSError as error:
        raise ModelError(f"{file} can't be read: {error.strerror or error}") from error
    _refuse_impostors(file, start)
    if len(start) < 9:
        raise DamagedModelError(f"{file} is cut short: it has {size} bytes")
    if length > min(size - 8, _LONGEST_HEADER):
        raise DamagedModelError(f"{file} is damaged: its header claims {length:,} bytes of a file of {size:,}")
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DamagedModelError(f"{file} is damaged: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise DamagedModelError(f"{file} is damaged: its header is not a JSON object")
    header.pop("__metadata__", None)
    records = [_record(file, name, entry, 8 + length, size) for name, entry in header.items()]
    _check_layout(file, records, 8 + length, size)
    return {record.name: record for record in records}


def read_headers(files: Iterable[Path]) -> dict[str, TensorRecord]:
    """The tensors of several files together.

    Raises:
        DamagedModelError: two files hold the same tensor.
    """
    together: dict[str, TensorRecord] = {}
    for file in files:
        for name, record in read_header(file).items():
            if name in together:
                raise DamagedModelError(f"{file} and {together[name].file} both hold the tensor {name}")
            together[name] = record
    return together


def _refuse_impostors(file: Path, start: bytes) -> None:
    if start[8:9] == b"{":
        return
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")) or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        raise ModelError(
            f"{file} is a pickle (PyTorch's own format), whatever its name: loading it could run any code. "
            "Vinograph reads safetensors only"
        )
    if start.startswith(b"version h"):
        raise ModelError(f"{file} is a Git LFS pointer, not the weights: fetch them with git lfs pull")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _record(file: Path, name: str, entry: Any, data: int, size: int) -> TensorRecord:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise DamagedModelError(f"{file} is damaged: its header garbles the tensor {name}") from error
    if dtype not in _ITEM_SIZES:
        raise DamagedModelError(f"{file}: the tensor {name} is of the type {dtype!r}, which is unknown")
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise DamagedModelError(f"{file} is damaged: its header garbles the tensor {name}")
    record = TensorRecord(file, name, dtype, tuple(shape), data + begin, data + end)
    if end - begin != record.size * _ITEM_SIZES[dtype]:
        raise DamagedModelError(
            f"{file} is damaged: the tensor {name} of shape {list(shape)} and type {dtype} has {end - begin:,} bytes"
        )
    if record.end > size:
        raise DamagedModelError(
            f"{file} is cut short: the tensor {name} ends at byte {record.end:,} of a file of {size:,}"
        )
    return record


def _check_layout(file: Path, records: list[TensorRecord], data: int, size: int) -> None:
    """No tensor may overlap another, and no byte may belong to none."""
    position = data
    for record in sorted(records, key=lambda each: (each.begin, each.end)):
        if record.begin != position:
            fault = "overlaps another" if record.begin < position else "leaves a gap before it"
            raise DamagedModelError(f"{file} is damaged: the tensor {record.name} {fault}")
        position = record.end
    if position != size:
        raise DamagedModelError(f"{file} is damaged: {size - position:,} bytes after the last tensor belong to none")


@dataclass(frozen=True)
class Allowance:
    """What may differ between a file and the module it is for: names that may be there unused, or be absent."""

    unused: frozenset[str] = frozenset()
    absent_suffixes: tuple[str, ...] = ()


def check(module: nn.Module, records: Mapping[str, TensorRecord], origin: Path, allow: Allowance) -> None:
    """Compare a module's parameters with the tensors for it, by name and shape.

    Raises:
        DamagedModelError: naming the first tensor that is missing, too many, or of the wrong shape or type.
    """
    expected = module.state_dict()
    for name, value in expected.items():
        record = records.get(name)
        if record is None:
            if name.endswith(allow.absent_suffixes) and allow.absent_suffixes:
                continue
            raise DamagedModelError(f"{origin} lacks the tensor {name}, of shape {list(value.shape)}")
        if record.shape != tuple(value.shape):
            raise DamagedModelError(
                f"{record.file}: the tensor {name} has the shape {list(record.shape)}; "
                f"the configuration asks for {list(value.shape)}"
            )
        if value.is_floating_point() != record.dtype.endswith(("F64", "F32", "F16")):
            raise DamagedModelError(f"{record.file}: the tensor {name} is of the type {record.dtype}")
    for name in records:
        if name not in expected and name not in allow.unused:
            raise DamagedModelError(f"{records[name].file} has the tensor {name}, which the model has no place for")


def load(module: nn.Module, records: Mapping[str, TensorRecord]) -> None:
    """Give ``module`` (on the meta device, already checked) the tensors: mapped where they are f32, else widened."""
    wanted = module.state_dict()
    state = {name: read_tensor(records[name]) for name in wanted if name in records}
    module.load_state_dict(state, strict=False, assign=True)
    module.requires_grad_(False)


def read_tensor(record: TensorRecord) -> torch.Tensor:
    """One tensor: floats in f32, integers in i64. f32 stays in the file, mapped, until it is used."""
    import torch

    kinds = {"BF16": "<i2", "BOOL": "|b1"}
    kind = kinds.get(record.dtype, f"<{record.dtype[0].lower()}{_ITEM_SIZES[record.dtype]}")
    if record.size == 0:
        return torch.zeros(record.shape)
    mapped = np.memmap(record.file, kind, mode="c", offset=record.begin, shape=record.shape or (1,))
    tensor = torch.from_numpy(mapped).reshape(record.shape)
    if record.dtype == "BF16":
        tensor = tensor.view(torch.bfloat16)
    return tensor.to(torch.float32 if record.dtype in ("F64", "F32", "F16", "BF16") else torch.int64)
