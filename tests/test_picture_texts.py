"""The texts in picture files, as Vinograph and A1111 write them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from vinograph.images import save
from vinograph.picture_texts import own_metadata, parameters_text, without_room

TEXT = "a house, 漢 é\nSteps: 3"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("text", [TEXT, "latin é"])
def test_they_come_back(tmp_path: Path, ending: str, text: str) -> None:
    file, metadata = tmp_path / f"a.{ending}", {"model": 'é & "<b>" &amp; 漢', "request": {"seed": 2**64 - 1}}
    save(Image.new("RGB", (8, 8)), file, metadata, text)
    with Image.open(file) as picture:
        assert parameters_text(picture) == text
        assert own_metadata(picture) == metadata


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


def test_what_there_is_no_room_for_is_left_out(tmp_path: Path) -> None:
    assert without_room("JPEG", {"prompt": "a" * 30_000}, "a" * 30_000) == []
    assert without_room("PNG", {"prompt": "a" * 90_000}, "a" * 90_000) == []
    assert without_room("WEBP", None, "a" * 31_000) == ['the text "parameters" that A1111 reads']
    assert without_room("JPEG", {"prompt": "a" * 65_000}, None) == ["Vinograph's record"]
    save(Image.new("RGB", (8, 8)), tmp_path / "a.jpg", {"prompt": "b"}, "a" * 31_000)
    with Image.open(tmp_path / "a.jpg") as picture:
        assert parameters_text(picture) is None
        assert own_metadata(picture) == {"prompt": "b"}


@pytest.mark.parametrize(
    ("xmp", "metadata"),
    [
        (b'<rdf:Description vinograph:metadata="{&quot;model&quot;: &quot;a&quot;}"/>', {"model": "a"}),
        (b"<vinograph:metadata>{&quot;model&quot;:\n &#34;a&#34;}</vinograph:metadata>", {"model": "a"}),
        (b"<vinograph:metadata>[1]</vinograph:metadata>", None),
        (b"<vinograph:metadata>{</vinograph:metadata>", None),
        (b"<vinograph:metadata>", None),
        (b"<!DOCTYPE a [<!ENTITY b '{}'>]><vinograph:metadata>&b;</vinograph:metadata>", None),
        (b"\xff\xfe", None),
    ],
)
def test_xmp_of_others(tmp_path: Path, xmp: bytes, metadata: dict[str, Any] | None) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", xmp=xmp)
    with Image.open(tmp_path / "a.webp") as picture:
        assert own_metadata(picture) == metadata


def test_the_xmp_is_well_formed(tmp_path: Path) -> None:
    save(Image.new("RGB", (8, 8)), tmp_path / "a.jpg", {"prompt": "</vinograph:metadata> & \u0001"}, None)
    with Image.open(tmp_path / "a.jpg") as picture:
        (root,) = ElementTree.fromstring(picture.info["xmp"].decode())
    (value,) = root[0]
    assert value.tag == "{urn:vinograph:}metadata"
    assert value.text == '{"prompt": "</vinograph:metadata> & \\u0001"}'
