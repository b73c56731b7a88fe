"""Weights in safetensors files, which are checked before use and mapped rather than read.

The format is https://github.com/huggingface/safetensors#format: eight bytes with the header's
length, the header in JSON, then the tensors without gaps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph import strict_json
from vinograph.errors import DamagedModelError, ModelError
from vinograph.schema import Many, Named, Record, SchemaError, Text, Whole, label
from vinograph.values import shown

_GRAPHS = "openvino_"  # the names of OpenVINO's own files begin with it, and some end in .bin, too
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

ON_DISK_ORDER = ("", "fp16", "bf16", "ema", "ema_only", "non_ema")
"""The order in which variants of a component's weights are preferred where they are on this disk.

"" is the file without a variant, which is in full precision where others are not. It comes first,
so that a directory draws what diffusers draws from it.
"""
DOWNLOAD_ORDER = ("fp16", "", "bf16", "ema", "ema_only", "non_ema")
"""The order in which variants are preferred for fetching: half the bytes come first."""

LENGTH_SIZE = 8  # bytes of the header's length, at the start of a file
LONGEST_HEADER = 16_000_000  # bytes: a hundred times what the largest published models have
_LONGEST_NAME = 500
_MOST_TENSORS = 100_000
_CODES_AT_ONCE = 1 << 20
_NUMPY_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "F64": "<f8",
        "F32": "<f4",
        "F16": "<f2",
        "I64": "<i8",
        "I32": "<i4",
        "I16": "<i2",
        "I8": "|i1",
        "U8": "|u1",
        "BOOL": "|b1",
    }
)
ITEM_SIZES: Mapping[str, int] = MappingProxyType(
    {**{name: np.dtype(kind).itemsize for name, kind in _NUMPY_TYPES.items()}, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
)
"""The bytes of a value, for each type that is read."""
# The types of the format that are not read.
_OTHER_TYPES = ("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "U16", "U32", "U64", "C64")


def _e4m3_values() -> NDArray[np.float16]:
    """The value of each byte as E4M3: a sign bit, four exponent bits, three mantissa bits.

    Micikevicius et al., FP8 Formats for Deep Learning (arXiv 2209.05433), section 3: there are no
    infinities, and the greatest magnitude stands for NaN. All values are exact in half precision.
    """
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    magnitude = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10))
    magnitude[codes & 127 == 127] = np.nan
    return np.where(codes < 128, magnitude, -magnitude).astype(np.float16)


F8_VALUES: Mapping[str, NDArray[np.float16]] = MappingProxyType(
    {"F8_E4M3": _e4m3_values(), "F8_E5M2": (np.arange(256, dtype=np.uint16) << 8).view(np.float16)}
)
"""The value of each byte, by type; E5M2 is the upper half of the number in half precision."""

WEIGHT_INDEX = Record(
    {"weight_map": Named(Text(255), least=1, most=_MOST_TENSORS, name=Text(_LONGEST_NAME))}, open=True
)
"""The schema of an index of sharded weights (….safetensors.index.json)."""
TENSOR = Record(
    {"dtype": Text(20), "shape": Many(Whole(0, 2**48), most=8), "data_offsets": Many(Whole(0, 2**62), 2, 2)}
)
"""The schema of a tensor's entry in the header of a safetensors file."""


@dataclass(frozen=True)
class TensorRecord:
    """A tensor in a file, from byte ``begin`` to ``end``."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    def array(self) -> NDArray[Any]:
        """The values, mapped from the file: BF16 as uint16, and 8 bits decoded to float16."""
        return self._values(self._mapped)

    def read(self) -> NDArray[Any]:
        """The values as :meth:`array` gives them, but in memory, which is quicker if they are needed once.

        Raises:
            DamagedModelError: the file has become shorter.
        """

        def stored(kind: str) -> NDArray[Any]:
            array = np.empty(self.shape, kind)
            with self.reading() as fill:
                fill(0, array)
            return array

        return self._values(stored)

    def _values(self, stored: Callable[[str], NDArray[Any]]) -> NDArray[Any]:
        """The values, of which ``stored`` gives the array of a NumPy type."""
        if (values := F8_VALUES.get(self.dtype)) is not None:
            return _decoded(stored("|u1"), values)
        return stored("<u2" if self.dtype == "BF16" else _NUMPY_TYPES[self.dtype])

    @contextmanager
    def reading(self) -> Iterator[Callable[[int, NDArray[Any]], None]]:
        """A function that fills an array with values as they are stored, from a flat index on.

        For values that are needed once, this is quicker than mapping them. The function raises a
        :class:`DamagedModelError` if the file has become shorter.
        """
        with self.file.open("rb", buffering=0) as stream:

            def fill(index: int, values: NDArray[Any]) -> None:
                view, place = values.reshape(-1).view(np.uint8).data, self.begin + index * values.itemsize
                while view:
                    count = os.preadv(stream.fileno(), [view], place)
                    if not count:
                        raise DamagedModelError(f"{self.file} is cut short: the tensor {self.name} ends elsewhere")
                    view, place = view[count:], place + count

            yield fill

    def _mapped(self, kind: str) -> NDArray[Any]:
        if not self.size:
            return np.zeros(self.shape, kind)
        mapped = np.memmap(self.file, kind, mode="c", offset=self.begin, shape=self.shape or (1,))
        return mapped.reshape(self.shape)


def _decoded(codes: NDArray[np.uint8], values: NDArray[np.float16]) -> NDArray[np.float16]:
    """The value of each byte, decoded in stretches: NumPy makes eight bytes of each index."""
    result = np.empty(codes.shape, np.float16)
    source, target = codes.reshape(-1), result.reshape(-1)
    for begin in range(0, source.size, _CODES_AT_ONCE):
        part = slice(begin, begin + _CODES_AT_ONCE)
        np.take(values, source[part], out=target[part], mode="clip")
    return result


def weight_names(stem: str, variant: str) -> tuple[str, ...]:
    """The names that a variant of a component's weights may have: a file's, then an index's.

    diffusers and transformers write the first name of an index, older versions of diffusers the
    second.
    """
    if not variant:
        return f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    return (
        f"{stem}.{variant}.safetensors",
        f"{stem}.safetensors.index.{variant}.json",
        f"{stem}.safetensors.{variant}.index.json",
        f"{stem}.{variant}.safetensors.index.json",
    )


def choose_weights(listing: Collection[str], stem: str, origin: str, order: Sequence[str] = ON_DISK_ORDER) -> str:
    """The file of ``listing`` that holds the weights of a component, or the index of its shards.

    It is the first variant of ``order`` that is there, else the only safetensors file under another
    name. Where there is none, it is the name that the file should have.

    Raises:
        ModelError: there are only pickled weights.
    """
    for variant in order:
        for name in weight_names(stem, variant):
            if name in listing:
                return name
    others = sorted(name for name in listing if name.endswith(".safetensors"))
    if len(others) == 1:
        return others[0]
    pickles = sorted(name for name in listing if name.endswith(PICKLES) and not name.startswith(_GRAPHS))
    if pickles and not others:
        raise ModelError(
            f"{origin} has its weights in {', '.join(pickles)}, pickled: loading them could run any code. "
            "Vinograph reads safetensors only; convert them first, or find a repository that has them"
        )
    return f"{stem}.safetensors"


def shards(index: Path) -> list[str]:
    """Names of the files in the folder of ``index`` (….safetensors.index.json) that hold the tensors.

    Raises:
        DamagedModelError: the file is not an index, or it names files elsewhere.
    """
    try:
        content = strict_json.read_object(index)
        WEIGHT_INDEX.check("", content)
    except (OSError, strict_json.JsonError, SchemaError) as error:
        raise DamagedModelError(f"{index} is not an index of weights ({error})") from error
    names = sorted(set(content["weight_map"].values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise DamagedModelError(f"{index} names {shown(name)}, which is not a safetensors file beside it")
    return names


def read_header(file: Path) -> dict[str, TensorRecord]:
    """The tensors of a safetensors file by name, after comparing the file with its header.

    Raises:
        ModelError: the file can't be read, or is a pickle under another name.
        DamagedModelError: the file is damaged; the message names the tensor where one is at fault.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(LENGTH_SIZE + 1)
            length = int.from_bytes(start[:LENGTH_SIZE], "little") if len(start) >= LENGTH_SIZE else 0
            text = start[LENGTH_SIZE:] + stream.read(min(length, LONGEST_HEADER) - 1) if length else b""
    except OSError as error:
        raise ModelError(f"{file} can't be read: {error.strerror or error}") from error
    _refuse_impostors(file, start)
    if len(start) <= LENGTH_SIZE:
        raise DamagedModelError(f"{file} is cut short: it has {size} bytes")
    if length > min(size - LENGTH_SIZE, LONGEST_HEADER):
        raise DamagedModelError(f"{file} is damaged: its header claims {length:,} bytes of a file of {size:,}")
    data = LENGTH_SIZE + length
    records = [_record(file, name, entry, data, size) for name, entry in parse_header(text, str(file)).items()]
    _check_layout(file, records, data, size)
    return {record.name: record for record in records}


def read_metadata(file: Path) -> dict[str, str]:
    """The texts that a safetensors file says of itself, by name; empty where it says nothing.

    The file was read by :func:`read_header` before, which compares the header with the file.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_SIZE), "little")
        header = strict_json.parse_object(stream.read(min(length, LONGEST_HEADER)), largest=LONGEST_HEADER, unique=True)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict):
        return {}
    return {name: value for name, value in metadata.items() if isinstance(value, str)}


def parse_header(text: bytes, origin: str) -> dict[str, dict[str, Any]]:
    """The entries of a safetensors header by tensor: ``dtype``, ``shape`` and ``data_offsets``.

    Args:
        text: the header, which is JSON.
        origin: names the file in errors.

    Raises:
        DamagedModelError: the header is not JSON, or an entry is garbled.
    """
    try:
        header = strict_json.parse_object(text, largest=LONGEST_HEADER, unique=True)
    except strict_json.JsonError as error:
        raise DamagedModelError(f"{origin} is damaged: its header is not JSON ({error})") from error
    header.pop("__metadata__", None)
    for name, entry in header.items():
        try:
            Text(_LONGEST_NAME).check("its name", name)
            TENSOR.check("", entry)
        except SchemaError as error:
            raise DamagedModelError(
                f"{origin} is damaged: its header garbles the tensor {label(name)}: {error}"
            ) from error
    return header


def read_headers(files: Iterable[Path]) -> dict[str, TensorRecord]:
    """The tensors of several files, by name.

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


def _record(file: Path, name: str, entry: Mapping[str, Any], data: int, size: int) -> TensorRecord:
    """The record of a tensor, whose bytes are counted from the end of the header, at ``data``."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype in _OTHER_TYPES:
        raise ModelError(
            f"{file}: the tensor {label(name)} is of the type {dtype}, which Vinograph doesn't compute with. Give a "
            "copy of the model in F32, F16, BF16, F8_E4M3 or F8_E5M2"
        )
    if dtype not in ITEM_SIZES:
        raise DamagedModelError(f"{file}: the tensor {name} is of the type {dtype!r}, which is unknown")
    record = TensorRecord(file, name, dtype, tuple(shape), data + begin, data + end)
    if end - begin != record.size * ITEM_SIZES[dtype]:
        raise DamagedModelError(
            f"{file} is damaged: the tensor {name} of shape {list(shape)} and type {dtype} has {end - begin:,} bytes"
        )
    if record.end > size:
        raise DamagedModelError(
            f"{file} is cut short: the tensor {name} ends at byte {record.end:,} of a file of {size:,}"
        )
    return record


def _check_layout(file: Path, records: list[TensorRecord], data: int, size: int) -> None:
    """Check that no tensor overlaps another, and that each byte belongs to one."""
    position = data
    for record in sorted(records, key=lambda each: (each.begin, each.end)):
        if record.begin != position:
            fault = "overlaps another" if record.begin < position else "leaves a gap before it"
            raise DamagedModelError(f"{file} is damaged: the tensor {record.name} {fault}")
        position = record.end
    if position != size:
        raise DamagedModelError(f"{file} is damaged: {size - position:,} bytes after the last tensor belong to none")
