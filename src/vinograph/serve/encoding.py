"""Encodes pictures that were drawn, with the texts that say how."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from vinograph import picture_texts
from vinograph.serve.contract import Encoding

_FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
_QUALITY = 95  # where the client names none; as in files that the command line writes
_PNG_LEVEL = 1  # zlib's fastest: a picture's file is a tenth larger, and is there ten times sooner


def encode(
    picture: Image.Image, encoding: Encoding, metadata: Mapping[str, Any] | None = None, infotext: str | None = None
) -> bytes:
    """The bytes of a picture's file, or its RGB values row by row where the format is "raw".

    ``metadata`` and ``infotext`` are stored as :mod:`vinograph.picture_texts` says.
    """
    if encoding.format == "raw":
        return picture.tobytes()
    kind = _FORMATS[encoding.format]
    quality = _QUALITY if encoding.quality is None else encoding.quality
    options: dict[str, Any] = {"compress_level": _PNG_LEVEL} if kind == "PNG" else {"quality": quality}
    options |= picture_texts.save_options(kind, metadata, infotext)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def encode_preview(picture: Image.Image) -> bytes:
    """The bytes of a preview: a PNG."""
    return encode(picture, Encoding())
