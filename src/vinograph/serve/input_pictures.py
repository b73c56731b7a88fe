"""Decodes pictures that clients send, from their bytes: PNG, JPEG or WebP, whatever they are named.

A picture's size is read from its header before any pixel is decoded. One picture is decoded at a
time, to save memory. Nothing is fetched: an address is refused, whatever it names.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vinograph.errors import RequestError
from vinograph.images import READABLE, Size, size_of
from vinograph.serve.configuration import Limits
from vinograph.values import reason, shown

_DATA_URL = re.compile(r"data:[\w.+/;=-]{0,100};base64,", re.ASCII | re.IGNORECASE)
_ADDRESS = re.compile(r"\s*(?:[a-z][a-z0-9+.-]{1,20}:|//)", re.ASCII | re.IGNORECASE)
_MOST_SCANS = 100  # of a JPEG; progressive ones have about ten, and each takes time for all pixels
_START_OF_SCAN = b"\xff\xda"
_DECODING = threading.Lock()


def from_base64(text: object, name: str, limits: Limits) -> Image.Image:
    """Decode a picture from base64, with or without ``data:…;base64,`` before it.

    Raises:
        RequestError: it is no base64, or as in :func:`decode`; an address is not fetched.
    """
    if not isinstance(text, str):
        raise RequestError(f"{name} is {shown(text)}; give the picture's bytes in base64")
    head = _DATA_URL.match(text)
    if head is None and _ADDRESS.match(text):
        raise RequestError(f"{name} is an address, and nothing is fetched; send the picture's bytes in base64")
    try:
        data = base64.b64decode("".join(text[head.end() if head else 0 :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{name} is no base64: {error}; send the picture's bytes in base64") from error
    return decode(data, name, limits)


def decode(data: bytes, name: str, limits: Limits) -> Image.Image:
    """Decode a picture, turned as its EXIF says, in the mode RGB, or RGBA if it has transparency.

    The picture's ``info`` holds the texts of its file. This may take a second: call it in a thread.

    Raises:
        RequestError: it is no PNG, JPEG or WebP, is animated, too large or damaged; the message
            names ``name``.
    """
    if not data:
        raise RequestError(f"{name} is empty; send a PNG, JPEG or WebP picture")
    _check_webp(data, name, limits)
    with _DECODING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large sizes, which are checked here, and garbled EXIF
        with _opened(data, name) as picture:
            _check_size(size_of(picture), name, limits)
            if picture.format != "JPEG" and getattr(picture, "n_frames", 1) > 1:
                raise RequestError(f"{name} is animated; send a single picture")
            if picture.format in ("JPEG", "MPO") and data.count(_START_OF_SCAN) > _MOST_SCANS:
                raise RequestError(f"{name} is a JPEG of over {_MOST_SCANS} scans; save it again with fewer")
            with _undamaged(name):
                picture.load()
                return _straight(picture)


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    try:
        picture = Image.open(io.BytesIO(data), formats=READABLE)
    except Image.DecompressionBombError as error:
        raise RequestError(f"{name} has too many pixels: {error}; scale it down") from error
    except UnidentifiedImageError as error:
        raise RequestError(f"{name} is no PNG, JPEG or WebP picture; send one of these") from error
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise nearly anything for a garbled header
        raise RequestError(f"{name} is damaged: {reason(error)}") from error
    with picture:
        yield picture


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise many kinds
        raise RequestError(f"{name} is damaged: {reason(error)}") from error


def _check_size(size: Size, name: str, limits: Limits) -> None:
    if 0 in size:
        raise RequestError(f"{name} is {size}: it has no pixels")
    if size.height * size.width > limits.input_pixels:
        raise RequestError(f"{name} is {size}, over {limits.input_pixels:,} pixels; scale it down")


def _check_webp(data: bytes, name: str, limits: Limits) -> None:
    """Check the size that a WebP's header states: PIL's reader allocates its canvas on opening."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30 and (size := _webp_size(data)) is not None:
        _check_size(size, name, limits)


def _webp_size(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
        return Size(height, width)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Size(1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Size(height & 0x3FFF, width & 0x3FFF)
    return None


def _straight(picture: Image.Image) -> Image.Image:
    """The picture upright, in RGB or RGBA."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16-bit grey, which PIL would clip to 8 bits, not scale
        deep = np.asarray(upright)
        grey = Image.fromarray((deep // 257).clip(0, 255).astype(np.uint8))
        grey.info = dict(upright.info)
        return grey.convert("RGB")
    return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
