"""Shows how a picture was drawn, for ``inspect PICTURE``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vinograph.cli import output
from vinograph.images import format_of, open_picture, size_of
from vinograph.infotext import Infotext, parse_infotext
from vinograph.picture_texts import own_metadata, parameters_text

_FIRST = ("prompt", "negative_prompt", "seed")


def is_picture(reference: str) -> bool:
    """Whether the text names a picture file rather than a model."""
    return format_of(Path(reference)) is not None


def inspect_picture(file: str, *, as_json: bool) -> None:
    """Print the request that a picture's file holds, and A1111's text.

    Raises:
        RequestError: the picture is damaged or too large.
    """
    kind = format_of(Path(file))
    picture = open_picture(file, "picture")
    own, text = own_metadata(picture), parameters_text(picture)
    infotext = None if text is None else parse_infotext(text)
    size = size_of(picture)
    if as_json:
        record = {
            **{"file": file, "format": kind, "width": size.width, "height": size.height},
            **{"metadata": own, "parameters": text},
            "infotext": None if infotext is None else dataclasses.asdict(infotext),
        }
        output.print_json(record)
        return
    rows = [("file", f"{file}  {size} {kind}"), *_rows(own, infotext)]
    output.table([], [[name.replace("_", " "), value] for name, value in rows])
    if own is None and infotext is None:
        output.say("the picture doesn't say how it was drawn")


def _rows(own: Mapping[str, Any] | None, infotext: Infotext | None) -> Iterator[tuple[str, str]]:
    """What Vinograph's own metadata say, else A1111's text."""
    if own is not None:
        request = own.get("request")
        values = dict(request) if isinstance(request, dict) else {}
        yield from ((name, str(own[name])) for name in ("model",) if name in own)
        yield from ((name, _text(values.pop(name))) for name in _FIRST if name in values)
        yield from ((name, _text(value)) for name, value in values.items())
        others = {name: value for name, value in own.items() if name not in ("model", "request")}
        yield from ((name, _text(value)) for name, value in others.items())
    elif infotext is not None:
        yield ("prompt", infotext.prompt)
        if infotext.negative_prompt:
            yield ("negative_prompt", infotext.negative_prompt)
        yield from infotext.fields.items()


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_text(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value)
