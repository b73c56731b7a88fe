"""Reads the bodies of OpenAI's routes: fields and pictures, from JSON or from a form."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from starlette.requests import Request

from vinograph import strict_json
from vinograph.errors import RequestError
from vinograph.serve.bodies import Form, read_form, read_json
from vinograph.serve.configuration import Limits
from vinograph.serve.failures import HTTPFailure
from vinograph.serve.input_pictures import decode, from_base64
from vinograph.serve.openai_fields import IMAGE, MASK
from vinograph.values import shown

_PICTURES: Mapping[str, str] = {"image": IMAGE, "images": IMAGE, "mask": MASK}
"""The names under which clients send pictures, also as ``image[]`` or ``image[0]``, and what each is."""

_MEMBER = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]", re.DOTALL)


@dataclass(frozen=True)
class Body:
    """The fields and pictures of a request.

    ``fields`` that are ``texts`` come from a form, and each has to be converted to its own kind.
    ``pictures`` are files, or base64, by what they are.
    """

    fields: Mapping[str, Any]
    pictures: Mapping[str, Sequence[bytes | str]]
    texts: bool


async def read_fields(request: Request, limits: Limits) -> Body:
    """Read the JSON of a route that takes no pictures.

    Raises:
        HTTPFailure: the body can't be read, or there is a picture in it.
    """
    fields = await read_json(request, limits)
    if given := [name for name in _PICTURES if fields.get(name) is not None]:
        message = f"{given[0]} was sent, and this route takes none; send it to /v1/images/edits"
        raise HTTPFailure(400, message, "unknown_parameter", given[0])
    return Body(_given(fields), {}, texts=False)


async def read_fields_and_pictures(request: Request, limits: Limits) -> Body:
    """Read a form with pictures as files, or JSON with pictures in base64.

    Raises:
        HTTPFailure: the body can't be read.
    """
    if request.headers.get("content-type", "").lower().startswith("application/json"):
        return _json_body(await read_json(request, limits))
    return _form_body(await read_form(request, limits))


def decode_picture(body: Body, name: str, limits: Limits) -> Image.Image | None:
    """Decode the picture ``name``, if there is one. This may take a second: call it in a thread.

    Raises:
        RequestError: there are several, or it is no picture that can be read.
    """
    given = body.pictures.get(name, ())
    if len(given) > 1:
        raise RequestError(f"{name} holds {len(given)} pictures, and here it can only be one")
    for each in given:
        return decode(each, name, limits) if isinstance(each, bytes) else from_base64(each, name, limits)
    return None


def structured(text: str) -> Any:
    """The list or object that a form's text holds as JSON; any other text as it is."""
    if text[:1] in ("[", "{"):
        with contextlib.suppress(strict_json.JsonError):
            return strict_json.parse(text)
    return text


def _json_body(sent: Mapping[str, Any]) -> Body:
    pictures: dict[str, list[str]] = {}
    for name, kind in _PICTURES.items():
        if sent.get(name) is not None:
            pictures.setdefault(kind, []).extend(_base64_of(name, sent[name]))
    fields = {name: value for name, value in sent.items() if name not in _PICTURES}
    return Body(_given(fields), {name: tuple(each) for name, each in pictures.items()}, texts=False)


def _base64_of(name: str, value: Any) -> list[str]:
    """The texts of a picture, of a list of them, or of OpenAI's ``{"image_url": …}``."""
    found = []
    for each in value if isinstance(value, list) else [value]:
        text = each.get("image_url") if isinstance(each, dict) else each
        if not isinstance(text, str):
            raise HTTPFailure(
                400, f"{name} is {shown(each)}; give the picture's bytes in base64", "invalid_value", name
            )
        found.append(text)
    return found


def _form_body(form: Form) -> Body:
    pictures: dict[str, list[bytes | str]] = {}
    fields: dict[str, Any] = {}
    for name, files in form.files.items():
        if kind := _picture_kind(name):
            pictures.setdefault(kind, []).extend(files)
        else:
            fields[name] = f"a file of {len(files[0]):,} bytes"
    for name, texts in form.fields.items():
        if kind := _picture_kind(name):
            pictures.setdefault(kind, []).extend(text for text in texts if text)
        else:
            _put(fields, name, texts)
    return Body(fields, {name: tuple(each) for name, each in pictures.items()}, texts=True)


def _picture_kind(name: str) -> str | None:
    return _PICTURES.get(name.partition("[")[0])


def _put(fields: dict[str, Any], name: str, texts: Sequence[str]) -> None:
    """Put a form's field, of which ``name[]`` is a list, and ``name[key]`` an entry of an object."""
    member = _MEMBER.fullmatch(name)
    if member is None and len(texts) > 1:
        raise HTTPFailure(400, f"{shown(name)} was given {len(texts)} times; give it once", "invalid_value", name)
    if member is None:
        fields[name] = texts[0]
    elif not member[2]:
        fields[member[1]] = [_number(text) for text in texts]
    else:
        entries = fields.setdefault(member[1], {})
        if not isinstance(entries, dict):
            raise HTTPFailure(400, f"{shown(member[1])} was given in two forms; give one", "invalid_value", member[1])
        entries[member[2]] = _number(texts[-1])


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value: OpenAI's clients may send null for those that have none."""
    return {name: value for name, value in fields.items() if value is not None}
