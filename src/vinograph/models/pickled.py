"""Reading tensors from a file of PyTorch, without PyTorch and without running code of the file.

Würstchen's image encoder is published only in this form. The file is a ZIP archive: ``data.pkl``
describes the tensors, and each storage of values is a member
(https://docs.pytorch.org/docs/stable/notes/serialization.html). Of the names that a pickle may
call, this reader allows ordered dictionaries and the two functions that rebuild tensors, for which
it has its own. Every other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.safetensors import ITEM_SIZES, TensorRecord

_LARGEST_PICKLE = 64_000_000
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE = b"PK\x03\x04"
# PyTorch's classes of storages, with safetensors' names of the types that they hold.
_STORAGES: Mapping[str, str] = MappingProxyType(
    {
        "DoubleStorage": "F64",
        "FloatStorage": "F32",
        "HalfStorage": "F16",
        "BFloat16Storage": "BF16",
        "LongStorage": "I64",
        "IntStorage": "I32",
        "ShortStorage": "I16",
        "CharStorage": "I8",
        "ByteStorage": "U8",
        "BoolStorage": "BOOL",
    }
)


def read_pickled(file: Path, key: str) -> dict[str, TensorRecord]:
    """The records of the tensors under ``key``, by name. Only their description is read.

    Raises:
        ModelError: the file names anything but tensors and dictionaries, or has no tensors under
            ``key``.
        DamagedModelError: the file is no such archive, or a tensor lies outside it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = {each.filename: each for each in archive.infolist()}
            description = next((name for name in members if name.endswith("/data.pkl")), None)
            if description is None:
                raise DamagedModelError(f"{file} is an archive without a data.pkl, so PyTorch didn't save it")
            content = archive.read(_checked(file, members[description], _LARGEST_PICKLE))
        folder = description.removesuffix("data.pkl")
        contents = _Reader(content, file, lambda name: members.get(f"{folder}data/{name}")).load()
    except (ModelError, DamagedModelError, MemoryError):
        raise
    except zipfile.BadZipFile as error:
        raise DamagedModelError(
            f"{file} is not an archive as PyTorch has written them since version 1.6, or it is cut short: {error}"
        ) from error
    except Exception as error:  # on damaged bytes, pickle raises errors of any kind
        raise DamagedModelError(f"{file} is damaged: its data.pkl can't be read ({type(error).__name__})") from error
    state = contents.get(key) if isinstance(contents, dict) else None
    if not isinstance(state, dict) or not state:
        raise ModelError(f"{file} has no tensors under {key!r}, where the image encoder's are published")
    if not all(isinstance(name, str) and isinstance(each, TensorRecord) for name, each in state.items()):
        raise ModelError(f"{file} has more than tensors under {key!r}")
    return {name: replace(each, name=name) for name, each in state.items()}


def _checked(file: Path, member: zipfile.ZipInfo, largest: int) -> zipfile.ZipInfo:
    """A member of the archive, checked to be stored without compression and not too large."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise DamagedModelError(f"{file} is compressed or encrypted, which PyTorch's files are not")
    if member.file_size > largest or member.file_size != member.compress_size:
        raise DamagedModelError(f"{file} is damaged: {member.filename[:80]} claims {member.file_size:,} bytes")
    return member


@dataclass(frozen=True)
class _Storage:
    """A storage of values, of which one or more tensors are parts."""

    dtype: str
    count: int
    begin: int


class _Reader(pickle.Unpickler):
    """An unpickler of tensors' descriptions, which refuses every name that these don't need."""

    def __init__(self, content: bytes, file: Path, member: Callable[[str], zipfile.ZipInfo | None]) -> None:
        super().__init__(io.BytesIO(content))
        self._file = file
        self._member = member

    def find_class(self, module: str, name: str) -> Any:
        """The object that a name stands for."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _parameter
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise ModelError(
            f"{self._file} asks for {module[:60]}.{name[:60]}, which is more than tensors: it is not read, and nothing "
            "of it was run"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that the pickle refers to by ``pid``."""
        kind, dtype, name, _, count = pid
        if kind != "storage" or dtype not in _STORAGES.values() or not isinstance(name, str):
            raise ValueError("it refers to something else than a storage")
        member = self._member(name)
        if member is None:
            raise DamagedModelError(f"{self._file} is damaged: it lacks the storage {name[:60]}")
        _checked(self._file, member, self._file.stat().st_size)
        if not _is_count(count) or count * ITEM_SIZES[dtype] != member.file_size:
            raise DamagedModelError(f"{self._file} is damaged: the storage {name[:60]} has {member.file_size:,} bytes")
        return _Storage(dtype, count, self._begin(member))

    def _begin(self, member: zipfile.ZipInfo) -> int:
        """The offset of a member's bytes, after a header whose length only the header says."""
        with self._file.open("rb") as stream:
            stream.seek(member.header_offset)
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
        begin: int = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if signature != _LOCAL_SIGNATURE or begin + member.file_size > self._file.stat().st_size:
            raise DamagedModelError(f"{self._file} is damaged: {member.filename[:80]} lies outside of it")
        return begin

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorRecord:
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(map(_is_count, numbers)) or len(shape) != len(strides):
            raise ValueError("a tensor is described by other things than numbers")
        if tuple(strides) != _contiguous(shape) and math.prod(shape) > 1:
            raise ModelError(f"{self._file} has a tensor whose values don't lie in order, which is not read")
        if offset + math.prod(shape) > storage.count:
            raise ValueError("a tensor has more values than its storage")
        size = ITEM_SIZES[storage.dtype]
        begin = storage.begin + offset * size
        return TensorRecord(self._file, "", storage.dtype, tuple(shape), begin, begin + math.prod(shape) * size)


def _parameter(tensor: Any, *_: Any) -> Any:
    """The tensor of a parameter."""
    return tensor


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor whose values lie in C order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
