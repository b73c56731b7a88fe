"""The texts in picture files: Vinograph's metadata in a PNG, and A1111's "parameters" in any picture.

A PNG has both as text chunks. A JPEG or a WebP has A1111's text alone, in the user comment of its
EXIF, as A1111 writes it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from PIL import Image, PngImagePlugin

from vinograph import strict_json

_OWN, _PARAMETERS = "vinograph", "parameters"
_EXIF, _USER_COMMENT = 0x8769, 0x9286
_UNICODE, _ASCII = b"UNICODE\0", b"ASCII\0\0\0"
_CODE_SIZE = 8
_MOST_EXIF = 60_000  # bytes; a JPEG has one segment of 65,533 for it


def save_options(kind: str, metadata: Mapping[str, Any] | None, parameters: str | None) -> dict[str, Any]:
    """PIL's options to write the texts into a picture of that format.

    A text that EXIF has no room for is left out: see :func:`fits`.
    """
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        if metadata is not None:
            text.add_itxt(_OWN, json.dumps(metadata, ensure_ascii=False, sort_keys=True))
        if parameters is not None:
            text.add_text(_PARAMETERS, parameters)
        return {"pnginfo": text}
    if parameters is None or not fits(kind, parameters):
        return {}
    exif = Image.Exif()
    exif.get_ifd(_EXIF)[_USER_COMMENT] = _UNICODE + parameters.encode("utf-16-be")
    return {"exif": exif}


def fits(kind: str, parameters: str) -> bool:
    """Whether a picture of that format has room for the text."""
    return kind == "PNG" or len(parameters.encode("utf-16-be")) <= _MOST_EXIF


def own_metadata(picture: Image.Image) -> dict[str, Any] | None:
    """Vinograph's metadata in an opened picture; None if it has none that is valid."""
    text = picture.info.get(_OWN)
    try:
        return strict_json.parse_object(text) if isinstance(text, str) else None
    except strict_json.JsonError:
        return None


def parameters_text(picture: Image.Image) -> str | None:
    """A1111's text in an opened picture; None if it has none."""
    text = picture.info.get(_PARAMETERS)
    if isinstance(text, str):
        return text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about garbled EXIF, which then holds no text
        try:
            comment = picture.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
        except MemoryError:
            raise
        except Exception:  # PIL raises many kinds for it
            return None
    return _decoded(comment) if isinstance(comment, bytes) else comment if isinstance(comment, str) else None


def _decoded(comment: bytes) -> str | None:
    code, text = comment[:_CODE_SIZE], comment[_CODE_SIZE:]
    if code == _UNICODE:
        # Big-endian by A1111, little-endian by some others: of Latin letters, one byte is 0.
        order = "utf-16-le" if text[1:2] == b"\0" and text[:1] != b"\0" else "utf-16-be"
        decoded = text.decode(order, errors="replace")
    else:
        decoded = (text if code == _ASCII else comment).decode("utf-8", errors="replace")
    return decoded.strip("\0") or None
