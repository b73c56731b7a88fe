"""The texts in picture files, as Vinograph and A1111 write them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vinograph.images import save
from vinograph.picture_texts import fits, own_metadata, parameters_text

TEXT = "a house, 漢 é\nSteps: 3"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("text", [TEXT, "latin é"])
def test_they_come_back(tmp_path: Path, ending: str, text: str) -> None:
    file, metadata = tmp_path / f"a.{ending}", {"model": "é"}
    save(Image.new("RGB", (8, 8)), file, metadata, text)
    with Image.open(file) as picture:
        assert parameters_text(picture) == text
        assert own_metadata(picture) == (metadata if ending == "png" else None)


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (b"UNICODE\0" + TEXT.encode("utf-16-be"), TEXT),
        (b"UNICODE\0" + TEXT.encode("utf-16-le"), TEXT),
        (b"ASCII\0\0\0" + b"a house", "a house"),
        (TEXT.encode(), TEXT),
        (b"UNICODE\0" + b"\xd8", "\ufffd"),
        (b"", None),
        (b"ASCII\0\0\0", None),
    ],
)
def test_comments_of_others(tmp_path: Path, comment: bytes, text: str | None) -> None:
    exif: Any = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as picture:
        assert parameters_text(picture) == text


def test_garbled_exif_is_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library, on opening
        picture = Image.open(tmp_path / "a.jpg")
    with picture:
        assert parameters_text(picture) is None


def test_what_exif_has_no_room_for_is_left_out(tmp_path: Path) -> None:
    assert fits("JPEG", "a" * 30_000)
    assert not fits("JPEG", "a" * 31_000)
    save(Image.new("RGB", (8, 8)), tmp_path / "a.jpg", None, "a" * 31_000)
    with Image.open(tmp_path / "a.jpg") as picture:
        assert parameters_text(picture) is None
