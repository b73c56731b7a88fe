"""The OpenAPI document of the server, from the tables of fields by which requests are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vinograph import __version__
from vinograph.serve import openai_fields
from vinograph.serve.configuration import Configuration
from vinograph.serve.fields import Base64Picture, Field, object_schema
from vinograph.serve.openapi_a1111 import IMG2IMG_BODY, OPTIONS_BODY, PNG_INFO_BODY, TXT2IMG_BODY
from vinograph.serve.openapi_replies import ERRORS, SCHEMAS

Schema = dict[str, Any]

_JSON, _FORM = "application/json", "multipart/form-data"
# What any request can be answered with, whatever it holds.
_ANY = (400, 403, 405, 431, 500, 503)
_BODY = (408, 413, 415)
_DRAWING = (429, 499, 504)


@dataclass(frozen=True)
class Operation:
    """A method of a path.

    ``reply`` is the name of its reply's schema, or a media type; ``body`` maps the content types of
    its body to schemas.
    """

    path: str
    method: str
    about: str
    reply: str
    body: Mapping[str, Schema] | None = None
    errors: tuple[int, ...] = ()
    parameters: tuple[Schema, ...] = ()
    events: bool = False

    def described(self, *, keys: bool, form_of: Mapping[str, Schema]) -> Schema:
        """The operation as OpenAPI describes it."""
        found: Schema = {
            "summary": self.about,
            "operationId": f"{self.method}{self.path.replace('/', '_').replace('{', '').replace('}', '')}",
            "responses": self._responses(keys, form_of),
        }
        if self.parameters:
            found["parameters"] = [*self.parameters]
        if self.body is not None:
            content = {kind: {"schema": schema} for kind, schema in self.body.items()}
            found["requestBody"] = {"required": True, "content": content}
        if keys and not self._is_open:
            found["security"] = [{"bearer": []}, {"basic": []}, {"header": []}]
        return found

    @property
    def _is_open(self) -> bool:
        return self.path in _PROBE_PATHS or self.path.startswith("/v1/images/files/")

    def _responses(self, keys: bool, form_of: Mapping[str, Schema]) -> Schema:
        statuses = {*_ANY, *self.errors, *(_BODY if self.body is not None else ()), *((401,) if keys else ())}
        errors = {str(status): _error(status, form_of[_api_of(self.path)]) for status in sorted(statuses)}
        content: Schema = {_JSON: {"schema": _ref(self.reply)}} if self.reply in SCHEMAS else {self.reply: {}}
        if self.events:
            content["text/event-stream"] = {"schema": _ref("Event")}
        replies = {"200": {"description": "done", "headers": _HEADERS, "content": content}}
        if self.path == "/readyz":
            errors["503"] = {"description": "it loads, or ends", "content": {self.reply: {}}}
        return {**replies, **errors}


_PROBE_PATHS = ("/livez", "/readyz")
_HEADERS = {"x-request-id": {"description": "the request's name in the log", "schema": {"type": "string"}}}
_TEXT = "text/plain; charset=utf-8"
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _api_of(path: str) -> str:
    return "A1111Error" if path.startswith("/sdapi/") else "OpenAIError"


def _error(status: int, schema: Schema) -> Schema:
    headers = {**_HEADERS}
    if status in (429, 503):
        headers["Retry-After"] = {"description": "seconds until another try makes sense", "schema": {"type": "string"}}
    if status == 405:
        headers["Allow"] = {"description": "the methods that the path has", "schema": {"type": "string"}}
    if status == 401:
        headers["WWW-Authenticate"] = {"description": "how to send the key", "schema": {"type": "string"}}
    return {"description": ERRORS[status], "headers": headers, "content": {_JSON: {"schema": schema}}}


def _form_schema(fields: Sequence[Field]) -> Schema:
    """The fields as parts of a form, where pictures are files."""
    schema = object_schema(each for each in fields if not _is_picture(each))
    for each in fields:
        if _is_picture(each):
            schema["properties"][each.name] = {
                "type": "string",
                "contentMediaType": "application/octet-stream",
                "description": each.about,
            }
            schema["required"] += [each.name] if each.needed else []
    return schema


def _is_picture(field: Field) -> bool:
    kinds = (field.schema, *(getattr(field.schema, name, None) for name in ("one", "each")))
    return any(isinstance(kind, Base64Picture) for kind in kinds)


def _with_pictures(fields: Sequence[Field]) -> Mapping[str, Schema]:
    return {_FORM: _form_schema(fields), _JSON: object_schema(fields)}


_OPENAI = (
    Operation(
        "/v1/images/generations",
        "post",
        "Draw pictures from a text.",
        "Images",
        {_JSON: object_schema(openai_fields.GENERATIONS)},
        (404, *_DRAWING),
        events=True,
    ),
    Operation(
        "/v1/images/edits",
        "post",
        "Draw a picture anew, or a part of it, from a text.",
        "Images",
        _with_pictures(openai_fields.EDITS),
        (404, *_DRAWING),
        events=True,
    ),
    Operation(
        "/v1/images/variations",
        "post",
        "Draw pictures that resemble a picture.",
        "Images",
        _with_pictures(openai_fields.VARIATIONS),
        (404, *_DRAWING),
        events=True,
    ),
    Operation(
        "/v1/images/files/{name}",
        "get",
        "A picture, by the address that a response has given within the last hour.",
        "image/*",
        errors=(404,),
        parameters=(_NAME,),
    ),
    Operation("/v1/models", "get", "The models.", "Models"),
    Operation("/v1/models/{name}", "get", "One model.", "Model", errors=(404,), parameters=(_NAME,)),
)

_SKIP = {
    "name": "skip_current_image",
    "in": "query",
    "required": False,
    "description": "leave the preview out",
    "schema": {"type": "boolean"},
}
_A1111 = (
    Operation("/sdapi/v1/txt2img", "post", "Draw from a text.", "Drawn", {_JSON: TXT2IMG_BODY}, (404, *_DRAWING)),
    Operation("/sdapi/v1/img2img", "post", "Draw from a picture.", "Drawn", {_JSON: IMG2IMG_BODY}, (404, *_DRAWING)),
    Operation("/sdapi/v1/options", "post", "Change options.", "Null", {_JSON: OPTIONS_BODY}, (404,)),
    Operation("/sdapi/v1/options", "get", "The options.", "Object", errors=(404,)),
    Operation("/sdapi/v1/png-info", "post", "The texts in a picture.", "PngInfo", {_JSON: PNG_INFO_BODY}),
    Operation("/sdapi/v1/progress", "get", "How far the client's drawing is.", "Progress", parameters=(_SKIP,)),
    Operation("/sdapi/v1/interrupt", "post", "End the client's drawing after the step under way.", "Object"),
    Operation("/sdapi/v1/skip", "post", "The same.", "Null"),
    *(
        Operation(f"/sdapi/v1/{name}", "post", "Has nothing to do here.", reply)
        for names, reply in (
            (("refresh-checkpoints", "refresh-loras", "refresh-vae"), "Null"),
            (("unload-checkpoint", "reload-checkpoint"), "Object"),
        )
        for name in names
    ),
    *(
        Operation(f"/sdapi/v1/{name}", "get", f"The list of {what}.", "List", errors=(404,))
        for name, what in {
            "sd-models": "models",
            "samplers": "samplers of the model",
            "schedulers": "spacings of the steps",
            "sd-vae": "VAEs of the model",
            "sd-modules": "VAEs of the model, as Forge asks for them",
            "loras": "adapters",
            "upscalers": "upscalers of the model",
            "latent-upscale-modes": "upscalers of latents",
            **dict.fromkeys(
                ("hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles", "script-info", "extensions"),
                "what the server has none of",
            ),
        }.items()
    ),
    *(
        Operation(f"/sdapi/v1/{name}", "get", about, "Object")
        for name, about in {
            "memory": "The machine's memory.",
            "embeddings": "Embeddings, of which there are none.",
            "scripts": "Scripts, of which there are none.",
            "cmd-flags": "How the server was started, as A1111 says it.",
        }.items()
    ),
    Operation("/internal/ping", "get", "An empty object, as A1111 answers.", "Object"),
)

_OWN = (
    Operation("/livez", "get", "Whether the server runs.", _TEXT),
    Operation("/readyz", "get", "Whether it draws: 503 while it loads and while it ends.", _TEXT),
    Operation("/metrics", "get", "Counters, for Prometheus.", "text/plain; version=1.0.0; charset=utf-8"),
    Operation("/openapi.json", "get", "This document.", "Object"),
)

_HOME = Operation("/", "get", "A page for people.", "text/html; charset=utf-8")

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def operations(*, page: bool) -> Iterable[Operation]:
    """All operations; where the web page is served, it answers at the root."""
    return (*_OPENAI, *_A1111, *_OWN, *(() if page else (_HOME,)))


def document(configuration: Configuration) -> Schema:
    """The OpenAPI 3.1 document for a server of that configuration."""
    keys = bool(configuration.keys)
    shapes = {name: _ref(name) for name in ("OpenAIError", "A1111Error")}
    paths: Schema = {}
    for each in operations(page=configuration.page):
        paths.setdefault(each.path, {})[each.method] = each.described(keys=keys, form_of=shapes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vinograph",
            "version": __version__,
            "description": "Draws pictures from text with OpenVINO: OpenAI's images API and A1111's API.",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS, **({"securitySchemes": _SECURITY} if keys else {})},
    }
