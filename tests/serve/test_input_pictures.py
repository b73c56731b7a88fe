"""Pictures that clients send: what is decoded, and what is refused before it costs memory."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vinograph.errors import RequestError
from vinograph.serve.configuration import Limits
from vinograph.serve.input_pictures import decode, from_base64

LIMITS = Limits(input_pixels=1_000_000)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


RED = Image.new("RGB", (8, 4), "red")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats_are_decoded(kind: str) -> None:
    picture = decode(saved(RED, kind), "image", LIMITS)
    assert (picture.mode, picture.size) == ("RGB", (8, 4))
    red, green, blue = np.asarray(picture)[2, 3]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_kept_for_masks(kind: str) -> None:
    mask = Image.new("RGBA", (8, 4), (0, 0, 0, 255))
    mask.putpixel((1, 1), (0, 0, 0, 0))
    picture = decode(saved(mask, kind, lossless=True), "mask", LIMITS)
    assert picture.mode == "RGBA"
    assert np.asarray(picture)[..., 3].tolist() == np.asarray(mask)[..., 3].tolist()


def test_a_picture_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(saved(RED, "JPEG", exif=exif), "image", LIMITS).size == (4, 8)


def test_deep_grey_is_scaled_and_not_clipped() -> None:
    deep = Image.fromarray(np.full((2, 2), 0x8080, np.uint16))
    assert decode(saved(deep, "PNG"), "image", LIMITS).getpixel((0, 0)) == (0x80, 0x80, 0x80)


def test_the_texts_of_a_file_are_there_to_be_read() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a red house")
    assert decode(saved(RED, "PNG", pnginfo=texts), "image", LIMITS).info["parameters"] == "a red house"


def refused(data: bytes, limits: Limits = LIMITS) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            decode(data, "image[0]", limits)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith("image[0] ")
    assert " at 0x" not in message
    return message


class TestAttacks:
    """What would take too much memory or time, or a reader that nobody needs."""

    def test_a_png_of_400_megapixels(self) -> None:
        assert "pixels" in refused(png(20_000, 20_000), Limits())

    def test_a_png_of_a_billion_pixels(self) -> None:
        assert "pixels" in refused(png(100_000, 10_000), Limits())

    def test_a_png_over_the_limit_of_the_configuration(self) -> None:
        assert "1,000,000 pixels" in refused(png(1_001, 1_000))

    @pytest.mark.parametrize("kind", [b"VP8X", b"VP8L", b"VP8 "])
    def test_a_webp_that_declares_a_huge_canvas(self, kind: bytes) -> None:
        bodies = {
            b"VP8X": bytes(4) + (16_382).to_bytes(3, "little") * 2,
            b"VP8L": b"\x2f" + struct.pack("<I", 16_383 | 16_383 << 14) + bytes(9),
            b"VP8 ": bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + bytes(9),
        }
        body = kind + struct.pack("<I", len(bodies[kind])) + bodies[kind]
        assert "over 1,000,000 pixels" in refused(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)

    @pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
    @pytest.mark.parametrize("place", ["before", "after"])
    def test_a_text_that_unpacks_to_100_megabytes(self, kind: bytes, place: str) -> None:
        packed = zlib.compress(bytes(100_000_000), 9)
        text = chunk(kind, b"parameters\0\0" + packed if kind == b"zTXt" else b"parameters\0\1\0\0\0" + packed)
        whole = png(1, 1, pixels=b"\0\1\2\3")
        data = png(1, 1, text, pixels=b"\0\1\2\3") if place == "before" else whole[:-12] + text + whole[-12:]
        assert "damaged" in refused(data)

    def test_a_profile_that_unpacks_to_100_megabytes(self) -> None:
        profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(100_000_000), 9))
        assert "damaged" in refused(png(1, 1, profile, pixels=b"\0\1\2\3"))

    @pytest.mark.parametrize(
        "data",
        [
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
            b"SIMPLE  =                    T" + b" " * 2850,
            b"8BPS\0\1" + bytes(6) + b"\0\3" + struct.pack(">II", 9, 9) + b"\0\x08\0\3" + bytes(12),
            saved(RED, "GIF"),
            saved(RED, "TIFF"),
            saved(RED, "BMP"),
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"\0" * 1000,
            b"RIFF",
        ],
        ids=["eps", "fits", "psd", "gif", "tiff", "bmp", "svg", "zeros", "riff"],
    )
    def test_another_format_under_any_name(self, data: bytes) -> None:
        assert "PNG, JPEG or WebP" in refused(data)

    def test_nothing(self) -> None:
        assert "empty" in refused(b"")

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_a_file_that_is_cut_off(self, kind: str) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        whole = saved(Image.fromarray(noise), kind)
        for size in (20, len(whole) // 4, len(whole) // 2, len(whole) - 200):
            refused(whole[:size])

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_an_animated_picture(self, kind: str) -> None:
        blue = Image.new("RGB", (8, 4), "blue")
        assert "animated" in refused(saved(RED, kind, save_all=True, append_images=[blue]))

    def test_a_jpeg_of_a_thousand_scans(self) -> None:
        whole = saved(RED, "JPEG", progressive=True)
        scan = whole.index(b"\xff\xda")
        assert "scans" in refused(whole[:scan] + whole[scan:-2] * 1000 + whole[-2:])


@given(
    st.sampled_from([saved(RED, kind) for kind in ("PNG", "JPEG", "WEBP")]),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=8),
    st.integers(0, 400),
)
def test_a_garbled_file_is_decoded_or_refused(whole: bytes, changes: list[tuple[int, int]], size: int) -> None:
    data = bytearray(whole[:size] or whole)
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(RequestError):
        assert decode(bytes(data), "image", LIMITS).mode in ("RGB", "RGBA")


class TestBase64:
    """The texts in which JSON carries pictures."""

    plain = base64.b64encode(saved(RED, "PNG")).decode()

    @pytest.mark.parametrize(
        "make",
        [
            lambda text: text,
            lambda text: f"data:image/png;base64,{text}",
            lambda text: f"data:;base64,{text}",
            lambda text: f"DATA:image/png;charset=utf-8;base64,{text}",
            lambda text: "\r\n".join(text[start : start + 20] for start in range(0, len(text), 20)),
        ],
        ids=["plain", "data-url", "without-type", "with-charset", "lines"],
    )
    def test_ways_to_write_it(self, make: Callable[[str], str]) -> None:
        assert from_base64(make(self.plain), "image", LIMITS).size == (8, 4)

    @pytest.mark.parametrize(
        "text",
        [
            "http://169.254.169.254/latest/meta-data/",
            "https://example.org/a.png",
            "file:///etc/passwd",
            "ftp://example.org/a.png",
            "//example.org/a.png",
            " HTTP://example.org/a.png",
            "data:text/html,<script>",
            "gopher://127.0.0.1:70/",
        ],
    )
    def test_addresses_are_not_fetched(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.socket", None)
        with pytest.raises(RequestError, match="init_images\\[0\\] is an address, and nothing is fetched"):
            from_base64(text, "init_images[0]", LIMITS)

    @pytest.mark.parametrize(
        "text", ["", "a", "ab$d", "é", "../../etc/passwd.", "data:image/png;base64,", "\ud800", 7, None, ["a"]]
    )
    def test_what_is_no_picture(self, text: object) -> None:
        with pytest.raises(RequestError, match="mask "):
            from_base64(text, "mask", LIMITS)
