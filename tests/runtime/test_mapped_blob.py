"""The file of a compiled component with weights: it is read as written, and damage is noticed."""

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vinograph.runtime import mapped_blob
from vinograph.runtime.mapped_blob import DamagedError, Export, TooLargeError

LARGE = 100 << 20
ABOUT = {"model": "tiny", "component": "unet", "shapes": "x 1x4"}


def pieces(content: bytes, size: int = 1 << 20, *, fails: bool = False) -> Export:
    """Exports as OpenVINO does, which writes the header last."""

    def export(stream: io.BytesIO) -> None:
        begin = stream.seek(0, io.SEEK_CUR)
        stream.write(bytes(64))
        for place in range(64, len(content), size):
            assert fails or stream.seek(0, io.SEEK_CUR) == place
            stream.write(content[place : place + size])
        stream.seek(begin)
        stream.write(content[:64])
        stream.flush()
        stream.seek(0)

    return export


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(0).bytes(LARGE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "unet.blob"


@pytest.mark.parametrize("size", [100, 3 << 20, LARGE])
def test_an_export_is_read_as_it_was_written(file: Path, content: bytes, size: int) -> None:
    mapped_blob.write(file, ABOUT, pieces(content[:size]), 2 * LARGE)
    found = mapped_blob.read(file)
    assert found.tobytes() == content[:size]
    assert found.ctypes.data % 4096 == 0


def test_reading_changes_nothing(file: Path, content: bytes) -> None:
    mapped_blob.write(file, ABOUT, pieces(content[:1000]), LARGE)
    mapped_blob.read(file)[:] = 0
    assert mapped_blob.read(file).tobytes() == content[:1000]


def cut(content: bytes, head: int) -> bytes:
    return content[:-1]


def longer(content: bytes, head: int) -> bytes:
    return content + b"\0"


def flipped(place: int) -> Callable[[bytes, int], bytes]:
    def change(content: bytes, head: int) -> bytes:
        at = (head if place >= 0 else len(content)) + place
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return change


def zeros(content: bytes, head: int) -> bytes:
    """As after a loss of power, when a file has its length but not its contents."""
    return content[: 16 << 20] + bytes(len(content) - (16 << 20))


def no_head(content: bytes, head: int) -> bytes:
    return content[head:]


def empty(content: bytes, head: int) -> bytes:
    return b""


def another_head(content: bytes, head: int) -> bytes:
    return b'{"size": 1}' + b" " * (head - 12) + b"\n" + content[head:]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        longer,
        zeros,
        no_head,
        empty,
        another_head,
        *map(flipped, (0, 100, (1 << 20) - 1, 5 << 20, -1, -(60 << 20))),
    ],
)
def test_damage(file: Path, content: bytes, damage: Callable[[bytes, int], bytes]) -> None:
    mapped_blob.write(file, ABOUT, pieces(content), 2 * LARGE)
    whole = file.read_bytes()
    file.write_bytes(damage(whole, len(whole) - LARGE))
    with pytest.raises(DamagedError):
        mapped_blob.read(file)


def test_most_bytes_are_not_read(file: Path) -> None:
    """Otherwise checking would take as long as compiling."""
    sampled = sum(length for _, length in mapped_blob._samples(2_600_000_000))
    assert sampled < 75_000_000


def test_an_export_larger_than_the_room(file: Path, content: bytes) -> None:
    with pytest.raises(TooLargeError):
        mapped_blob.write(file, ABOUT, pieces(content, fails=True), 10 << 20)
    assert file.stat().st_size < 11 << 20


def test_a_full_disk(file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO ignores what a stream raises."""
    opened = Path.open

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, *_: Full(self, "w+"))
    with pytest.raises(OSError, match="No space left"):
        mapped_blob.write(file, ABOUT, pieces(content[:1000], fails=True), LARGE)
    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("name", ["x" * 4000, "x" * 4096, "\u00fc" * 700])
def test_long_names(file: Path, content: bytes, name: str) -> None:
    mapped_blob.write(file, {**ABOUT, "model": name}, pieces(content[:5000]), LARGE)
    assert mapped_blob.read(file).tobytes() == content[:5000]
