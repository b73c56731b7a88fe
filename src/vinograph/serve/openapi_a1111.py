"""The bodies of A1111's API as JSON Schema, from the tables by which they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vinograph.request import Request, arguments_of
from vinograph.serve import a1111_fields
from vinograph.serve.a1111_fields import IMG2IMG, TXT2IMG, Field

Schema = dict[str, Any]

# A number may be given as a text, and null is the default: A1111's server takes both.
_KINDS: Mapping[Callable[[str, Any], Any], Schema] = {
    a1111_fields.whole: {"type": ["integer", "string", "null"]},
    a1111_fields.number: {"type": ["number", "string", "null"]},
    a1111_fields.text: {"type": ["string", "null"]},
    a1111_fields.switch: {"type": ["boolean", "integer", "string", "null"]},
    a1111_fields.mapping: {"type": ["object", "null"]},
    a1111_fields.listing: {"type": ["array", "null"]},
}
_ARGUMENTS: Mapping[str, str] = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "width": "width",
    "height": "height",
    "batch_size": "num_images_per_prompt",
    "sampler_name": "scheduler",
    "denoising_strength": "strength",
    "mask": "mask_image",
}
"""The arguments of a drawing that fields set, whose meaning they have."""


def _body(fields: Mapping[str, Field]) -> Schema:
    return {"type": "object", "properties": {name: _described(name, field) for name, field in fields.items()}}


def _described(name: str, field: Field) -> Schema:
    argument = arguments_of(Request).get(_ARGUMENTS.get(name, ""))
    about = "has no effect" if field.ignored else argument.about if argument is not None else ""
    return {
        **_KINDS.get(field.read, {}),
        **({"description": about} if about else {}),
        **({"default": field.default} if field.default not in (None, [], {}) else {}),
    }


TXT2IMG_BODY = _body(TXT2IMG)
IMG2IMG_BODY = _body(IMG2IMG)
PNG_INFO_BODY: Schema = {
    "type": "object",
    "properties": {"image": {"type": "string", "contentEncoding": "base64"}},
    "required": ["image"],
}
OPTIONS_BODY: Schema = {"type": "object", "description": "options by their names, as GET lists them"}
