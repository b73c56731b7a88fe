"""The objects that OpenAI's API answers with: pictures, usage, models and errors."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from starlette.responses import JSONResponse, Response

from vinograph.serve.contract import Drawn, ModelInfo, Picture
from vinograph.serve.failures import NO_RETRY, HTTPFailure
from vinograph.serve.openai_request import Asked

_PATCH = 16  # pixels along the side of what counts as one token of a picture
_BYTES_OF_A_TOKEN = 4  # of English text, about
_TYPES = {429: "rate_limit_error"}


def now() -> int:
    """The time in whole seconds since 1970."""
    return int(time.time())


def as_json(value: Mapping[str, Any]) -> bytes:
    """The object as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def with_picture(fields: Mapping[str, Any], data: bytes) -> bytes:
    """JSON of the ``fields`` and of a picture's file as ``b64_json``.

    Base64 needs no escapes: an encoder would look for them in megabytes.
    """
    return b'{"b64_json":"' + base64.b64encode(data) + b'",' + as_json(fields)[1:]


def images_response(asked: Asked, drawn: Drawn, links: tuple[str, ...]) -> bytes:
    """The response of the three routes that draw. ``links`` are addresses of the pictures, if any."""
    items = []
    for index, picture in enumerate(drawn.pictures):
        fields: dict[str, Any] = {"seed": picture.seed}
        if links:
            fields = {"url": links[index], **fields}
        items.append(with_picture(fields, picture.data) if asked.reply.with_data else as_json(fields))
    others = {
        "created": now(),
        **appearance(asked, _size(drawn)),
        "usage": usage(asked, drawn.pictures),
        **provenance(drawn),
    }
    return b'{"data":[' + b",".join(items) + b"]," + as_json(others)[1:]


def check_drawn(drawn: Drawn) -> None:
    """Check that there is a picture: a job that somebody interrupts may end before its first.

    Raises:
        HTTPFailure: there is none.
    """
    if not drawn.pictures:
        message = "the drawing was interrupted before a picture was done"
        raise HTTPFailure(503, message, "interrupted", headers=NO_RETRY)


def appearance(asked: Asked, size: str) -> dict[str, str]:
    """What OpenAI says of every picture: its size, its format, and how it was asked for."""
    return {
        "size": size,
        "quality": asked.reply.quality,
        "background": "opaque",
        "output_format": asked.drawing.encoding.format,
    }


def provenance(drawn: Drawn) -> dict[str, Any]:
    """What we say besides: the model that drew, and its warnings."""
    return {"model": drawn.model, **({"warnings": list(drawn.warnings)} if drawn.warnings else {})}


def usage(asked: Asked, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Usage in tokens, by which clients account for cost.

    A picture's are its squares of 16 pixels a side, and a prompt's a quarter of its bytes.
    """
    text = -(-len(asked.prompt.encode()) // _BYTES_OF_A_TOKEN)
    given = 0 if asked.input_size is None else _patches(*asked.input_size)
    output = sum(_patches(each.height, each.width) for each in pictures)
    return {
        "input_tokens": text + given,
        "input_tokens_details": {"text_tokens": text, "image_tokens": given},
        "output_tokens": output,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
        "total_tokens": text + given + output,
    }


def _patches(height: int, width: int) -> int:
    return -(-height // _PATCH) * -(-width // _PATCH)


def _size(drawn: Drawn) -> str:
    first = drawn.pictures[0]
    return f"{first.width}x{first.height}"


def model_object(model: ModelInfo) -> dict[str, Any]:
    """A model as OpenAI lists it, with what a client can learn of ours."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "vinograph",
        "family": model.family,
        "loaded": model.loaded,
        "problem": model.problem or None,
        "sizes": None if model.sizes is None else asdict(model.sizes),
    }


def error_object(failure: HTTPFailure) -> dict[str, Any]:
    """A failure as OpenAI describes it: always all four fields."""
    kind = _TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "server_error")
    return {"message": failure.message, "type": kind, "param": failure.param, "code": failure.code}


def failure_response(failure: HTTPFailure) -> Response:
    """The response for a failure, in OpenAI's shape."""
    return JSONResponse({"error": error_object(failure)}, failure.status, dict(failure.headers))
