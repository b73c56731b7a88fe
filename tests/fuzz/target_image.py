"""Broken PNG, JPEG, WebP, AVIF, TIFF and GIF files, read as files, PIL pictures and masks, and by commands."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tests.bundles import save_sdxl_bundle
from tests.fuzz import Attempt, Target
from vinograph import RequestError
from vinograph.cli import main
from vinograph.families.inpainting import read_masks, resized, to_mask
from vinograph.images import Size, read_pictures

_CHUNKS = (b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"gAMA", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"bKGD", b"pHYs")
_COMMAND_LINE_SHARE = 0.05  # share of attempts by the command line, each of which opens a model
_EXIT_CODES = (0, 2, 5)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _samples() -> list[bytes]:
    """Small picture files of every mode and variant of the formats."""
    pixels = Image.fromarray(np.random.RandomState(0).randint(0, 256, (24, 32, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    there: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((pixels.convert(mode), "PNG", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        (pixels.quantize(16), "PNG", {"transparency": bytes(range(16))}),
        (pixels.convert("L"), "PNG", {"transparency": 7, "exif": exif}),
        (pixels, "PNG", {"save_all": True, "append_images": [pixels.rotate(90)]}),
        *((pixels.convert(mode), "JPEG", {"exif": exif}) for mode in ("L", "RGB", "CMYK")),
        (pixels, "JPEG", {"progressive": True}),
        *((pixels.convert(mode), "WEBP", {"exif": exif}) for mode in ("RGB", "RGBA")),
        (pixels.convert("RGBA"), "WEBP", {"lossless": True}),
        *((pixels, kind, {"save_all": True, "append_images": [pixels.rotate(90)]}) for kind in ("WEBP", "AVIF", "GIF")),
        *((pixels.convert(mode), "TIFF", {}) for mode in ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB")),
        *((pixels, "TIFF", {"compression": each, "exif": exif}) for each in ("tiff_lzw", "jpeg", "tiff_deflate")),
        (pixels, "TIFF", {"save_all": True, "append_images": [pixels.rotate(90)]}),
        *((pixels.convert(mode), "AVIF", {"exif": exif}) for mode in ("RGB", "RGBA")),
        (pixels, "GIF", {"transparency": 3}),
    ]
    files = []
    for picture, kind, options in there:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        files.append(file.getvalue())
    return files


def _bytes_changed(content: bytearray, random: Random) -> None:
    for _ in range(random.choice([1, 1, 3, 20])):
        content[random.randrange(len(content))] = random.randrange(256)


def _cut(content: bytearray, random: Random) -> None:
    del content[random.randrange(len(content)) :]


def _hole(content: bytearray, random: Random) -> None:
    start = random.randrange(len(content))
    del content[start : start + random.randrange(1, 40)]


def _doubled(content: bytearray, random: Random) -> None:
    start = random.randrange(len(content))
    content[start:start] = content[start : start + random.randrange(1, 200)]


def _number(content: bytearray, random: Random) -> None:
    start = random.randrange(max(1, len(content) - 4))
    content[start : start + 4] = struct.pack(random.choice("<>") + "I", random.choice([0, 1, 2**31 - 1, 2**32 - 1]))


def _more_chunks(content: bytearray, random: Random) -> None:
    """A PNG with an additional chunk of any length at any place, with a valid checksum."""
    size = random.choice([0, 1, 2, 3, 6, 7, 255, 256, 257, 300, 5000])
    data = random.randbytes(size)
    if random.random() < 0.3:
        data = b"key\0\0" + zlib.compress(bytes(random.choice([10, 100_000])))
    content[33:33] = _chunk(random.choice(_CHUNKS), data)


def _header(content: bytearray, random: Random) -> None:
    """A PNG with another header, with a valid checksum."""
    fields = [*struct.unpack(">IIBBBBB", bytes(content[16:29]))]
    fields[random.randrange(7)] = random.choice([0, 1, 2, 3, 4, 6, 8, 16, 24, 32])
    content[8:33] = _chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))


_ANY: Sequence[Callable[[bytearray, Random], None]] = (_bytes_changed, _cut, _hole, _doubled, _number)
_PNG: Sequence[Callable[[bytearray, Random], None]] = (_more_chunks, _more_chunks, _header)


def _changed(content: bytes, random: Random) -> bytes:
    result = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 3])):
        is_png = result[:4] == b"\x89PNG" and len(result) > 33
        if result:
            random.choice([*_ANY, *(_PNG if is_png else ())])(result, random)
    return bytes(result)


def _prepare(prepared: Path) -> Attempt:
    samples, model = _samples(), save_sdxl_bundle(prepared / "model").path

    def attempt(random: Random, folder: Path) -> None:
        path = folder / "picture.png"
        path.write_bytes(_changed(random.choice(samples), random))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's own error about the file
            _read(path)
            if random.random() < _COMMAND_LINE_SHARE:
                _by_command_line(random, model, path)

    return attempt


def _read(path: Path) -> None:
    for read in (read_pictures, read_masks):
        with contextlib.suppress(RequestError):
            for each in read(path):
                to_mask(resized(each, Size(8, 8)))
        try:
            opened = Image.open(path)
        except Exception:  # PIL's error when the caller opens the file
            continue
        with opened, contextlib.suppress(RequestError):
            for each in read(opened):
                to_mask(resized(each, Size(8, 8)))


def _by_command_line(random: Random, model: Path, path: Path) -> None:
    options = ["--model", str(model), "--output", str(path.with_name("drawn.png")), "--seed", "1"]
    commands = (["reconstruct", str(path), *options[:4]], ["generate", "a house", "--image", str(path), *options])
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        code = main(random.choice(commands))
    assert code in _EXIT_CODES, f"exit code {code}: {said.getvalue()}"


TARGETS = [Target("image", _prepare, 300)]
