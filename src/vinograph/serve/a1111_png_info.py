"""Reads from a picture how it was drawn, as A1111's ``png-info`` answers it."""

from __future__ import annotations

from typing import Any

from vinograph.infotext import Infotext, parse_infotext
from vinograph.picture_texts import parameters_text
from vinograph.serve.configuration import Limits
from vinograph.serve.input_pictures import from_base64

_PARAMETERS = "parameters"
_LONGEST = 100_000  # characters of a text that is sent back


def png_info(image: object, limits: Limits) -> dict[str, Any]:
    """The texts in a picture: ``info`` as written, ``parameters`` as read, and ``items``, all others.

    Raises:
        RequestError: it is no picture in base64.
    """
    picture = from_base64(image, "image", limits)
    text = (parameters_text(picture) or "")[:_LONGEST]
    items = {
        name: value[:_LONGEST]
        for name, value in picture.info.items()
        if isinstance(name, str) and isinstance(value, str) and name != _PARAMETERS
    }
    return {"info": text, "items": items, "parameters": _parameters(parse_infotext(text)) if text else {}}


def _parameters(infotext: Infotext) -> dict[str, str]:
    """A text's fields as A1111 names them: a size is two of them."""
    fields: dict[str, str] = {"Prompt": infotext.prompt, "Negative prompt": infotext.negative_prompt}
    for name, value in infotext.fields.items():
        width, cross, height = value.partition("x")
        if cross and width.isdigit() and height.isdigit():
            fields |= {f"{name}-1": width, f"{name}-2": height}
        else:
            fields[name] = value
    return fields
