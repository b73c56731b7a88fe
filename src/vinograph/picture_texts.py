"""The texts in picture files: Vinograph's metadata, and A1111's "parameters".

A PNG has both as text chunks. A JPEG or a WebP has A1111's text in the user comment of its EXIF, as
A1111 writes it, and Vinograph's metadata as a property of its XMP.
"""

from __future__ import annotations

import html
import json
import re
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
_MOST_XMP = 65_000  # bytes; likewise

_XMP = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:vinograph="urn:vinograph:">
<vinograph:metadata>{}</vinograph:metadata>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
# As it is written, and as an attribute, which editors make of it. An XML parser would expand a stranger's entities.
_XMP_VALUE = re.compile(r"<vinograph:metadata>([^<]*)</vinograph:metadata>|\bvinograph:metadata=\"([^\"<]*)\"")


def save_options(kind: str, metadata: Mapping[str, Any] | None, parameters: str | None) -> dict[str, Any]:
    """PIL's options to write the texts into a picture of that format.

    Texts that have no room are left out: see :func:`without_room`.
    """
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        if metadata is not None:
            text.add_itxt(_OWN, _json(metadata))
        if parameters is not None:
            text.add_text(_PARAMETERS, parameters)
        return {"pnginfo": text}
    options: dict[str, Any] = {}
    if metadata is not None and len(xmp := _xmp(metadata)) <= _MOST_XMP:
        options["xmp"] = xmp
    if parameters is not None and len(comment := parameters.encode("utf-16-be")) <= _MOST_EXIF:
        options["exif"] = exif = Image.Exif()
        exif.get_ifd(_EXIF)[_USER_COMMENT] = _UNICODE + comment
    return options


def without_room(kind: str, metadata: Mapping[str, Any] | None, parameters: str | None) -> list[str]:
    """Which of the texts a picture of that format has no room for, in words."""
    if kind == "PNG":
        return []
    written = save_options(kind, metadata, parameters)
    texts = {"xmp": (metadata, "Vinograph's record"), "exif": (parameters, 'the text "parameters" that A1111 reads')}
    return [name for option, (text, name) in texts.items() if text is not None and option not in written]


def _json(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=False, sort_keys=True)


def _xmp(metadata: Mapping[str, Any]) -> bytes:
    return _XMP.format(html.escape(_json(metadata), quote=False)).encode()


def own_metadata(picture: Image.Image) -> dict[str, Any] | None:
    """Vinograph's metadata in an opened picture; None if it has none that is valid."""
    text = picture.info.get(_OWN, _in_xmp(picture.info.get("xmp")))
    try:
        return strict_json.parse_object(text) if isinstance(text, str) else None
    except strict_json.JsonError:
        return None


def _in_xmp(xmp: Any) -> str | None:
    if not isinstance(xmp, bytes):
        return None
    found = _XMP_VALUE.search(xmp.decode("utf-8", "replace"))
    return None if found is None else html.unescape(found[1] or found[2] or "")


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
