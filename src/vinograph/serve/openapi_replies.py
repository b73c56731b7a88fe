"""What the server answers, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

ERRORS: Mapping[int, str] = {
    400: "the request is wrong; the message says what would work",
    401: "the API key is missing or wrong",
    403: "the host's name or the page's origin is not allowed",
    404: "there is no such model, picture or path",
    405: "the path has no such method",
    408: "the body came too slowly",
    413: "the body, or a part of it, is too large",
    415: "the content type is another, or the body is compressed",
    429: "as many requests wait as the queue takes",
    431: "there are too many headers, or too large ones",
    499: "the client went away, or the drawing was cancelled",
    500: "a defect of the server, or the process that drew was lost",
    503: "the server ends, or the model can't be used",
    504: "the picture was not done before the deadline",
}

_INTEGER: Schema = {"type": "integer"}
_STRING: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def _object(properties: Mapping[str, Schema], *optional: str) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
    }


_IMAGE = _object(
    {
        "b64_json": {**_STRING, "contentEncoding": "base64"},
        "url": {**_STRING, "format": "uri"},
        "seed": {**_INTEGER, "description": "draws this picture again, alone"},
        "revised_prompt": _STRING,
    },
    *("b64_json", "url", "revised_prompt", "seed"),
)
_TOKENS = {"text_tokens": _INTEGER, "image_tokens": _INTEGER}
_USAGE = _object(
    {
        "input_tokens": _INTEGER,
        "input_tokens_details": _object(_TOKENS),
        "output_tokens": _INTEGER,
        "output_tokens_details": _object(_TOKENS),
        "total_tokens": _INTEGER,
    }
)
_MODEL = _object(
    {
        "id": _STRING,
        "object": {"const": "model"},
        "created": {**_INTEGER, "description": "seconds since 1970"},
        "owned_by": _STRING,
        "family": _STRING,
        "loaded": {"type": "boolean"},
        "problem": {**_TEXT_OR_NULL, "description": "why the model can't be used"},
        "sizes": {"type": ["object", "null"], "description": "the sizes of pictures, in pixels"},
    }
)

SCHEMAS: Mapping[str, Schema] = {
    "OpenAIError": _object(
        {
            "error": _object(
                {"message": _STRING, "type": _STRING, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL},
            )
        }
    ),
    "A1111Error": _object({"error": _STRING, "detail": _STRING, "body": _STRING, "errors": _STRING}),
    "Images": _object(
        {
            "created": {**_INTEGER, "description": "seconds since 1970"},
            "data": {"type": "array", "items": _IMAGE},
            "usage": _USAGE,
            "size": _STRING,
            "quality": _STRING,
            "background": _STRING,
            "output_format": _STRING,
            "model": _STRING,
            "warnings": {"type": "array", "items": _STRING},
        },
        "warnings",
    ),
    "Event": {
        **_object({"event": _STRING, "data": {**_STRING, "contentMediaType": "application/json"}}),
        "description": "an event of the stream, such as image_generation.partial_image; the last one ends in completed",
    },
    "Model": _MODEL,
    "Models": _object({"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}}),
    "Drawn": _object(
        {
            "images": {"type": "array", "items": {**_STRING, "contentEncoding": "base64"}},
            "parameters": {"type": "object"},
            "info": {**_STRING, "contentMediaType": "application/json"},
        }
    ),
    "Progress": _object(
        {
            "progress": {"type": "number", "minimum": 0, "maximum": 1},
            "eta_relative": {"type": "number"},
            "state": {"type": "object"},
            "current_image": {**_TEXT_OR_NULL, "contentEncoding": "base64"},
            "textinfo": _TEXT_OR_NULL,
        },
        "textinfo",
    ),
    "PngInfo": _object({"info": _STRING, "items": {"type": "object"}, "parameters": {"type": "object"}}),
    "Object": {"type": "object"},
    "List": {"type": "array"},
    "Null": {"type": "null"},
}
"""The replies, by the names that operations give them."""
