"""What a client of OpenAI's API asks for: its fields, checked and turned into a drawing.

:mod:`vinograph.serve.openai_fields` declares OpenAI's own fields. All others are arguments of the
model's call, and the schema of requests checks them.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageChops

from vinograph.arguments import Limits as ValueLimits
from vinograph.images import Size, size_of
from vinograph.request import Argument
from vinograph.schema import Flag, Kind, Real, SchemaError, Whole
from vinograph.serve.configuration import Configuration
from vinograph.serve.contract import Drawing, Encoding, ModelInfo, ModelUnavailableError
from vinograph.serve.failures import HTTPFailure
from vinograph.serve.fields import from_text
from vinograph.serve.openai_body import Body, structured
from vinograph.serve.openai_fields import (
    ADAPTERS,
    COUNT,
    COUNT_ARGUMENT,
    DEFAULT_FORMAT,
    IGNORED_NAMES,
    IMAGE,
    KINDS,
    MASK,
    MASK_ARGUMENT,
    PROMPT,
    SIZE,
    parameters,
)
from vinograph.serve.openai_sizes import AUTO, size_to_draw
from vinograph.values import clipped, shown

OWN_HEADERS = "x-vinograph-"
"""What the names of headers begin with that tell what was done other than the client said."""

_AS_DRAWN_ANYWAY: Mapping[str, tuple[str, ...]] = {"background": (AUTO, "opaque")}
_QUALITIES: Mapping[str, str] = {
    **{each: each for each in ("low", "medium", "high", "xhigh", "max")},
    "standard": "medium",
    "hd": "high",
}
_DEFAULT_QUALITY = "medium"
_LINKED_BY_DEFAULT = ("dall-e-2", "dall-e-3")  # OpenAI answered with addresses for these two


@dataclass(frozen=True)
class Reply:
    """How a client wants its pictures.

    ``with_data`` puts them into the response, ``linked`` gives their addresses. ``quality`` is what
    was asked for, as OpenAI's response repeats it.
    """

    with_data: bool
    linked: bool
    stream: bool
    partial_images: int
    quality: str


@dataclass(frozen=True)
class Asked:
    """A request of OpenAI's API, checked.

    ``size`` is the size of the pictures as far as it is known before they are drawn, else "auto".
    ``input_size`` is that of the picture that was sent. ``headers`` tell the client what was done
    other than it said.
    """

    drawing: Drawing
    reply: Reply
    prompt: str
    size: str
    input_size: Size | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def field_names(self) -> frozenset[str]:
        """The client's names of the fields that the drawing was made from."""
        names = self.drawing.names
        return frozenset({names.get(each, each) for each in self.drawing.arguments} | {ADAPTERS, "model"})

    def without_pictures(self) -> Asked:
        """The request as a response needs it, without pictures that take much memory."""
        return dataclasses.replace(self, drawing=dataclasses.replace(self.drawing, arguments={}))


@dataclass(frozen=True)
class RequestReader:
    """Turns the bodies of requests to one model into drawings.

    ``prompt`` is what to draw where the client gives no prompt; with None it has to give one.
    """

    model: ModelInfo
    configuration: Configuration
    prompt: str | None = None
    client: str = ""

    def read(self, body: Body) -> Asked:
        """Check the fields, without the pictures.

        Raises:
            HTTPFailure: a field is unknown, missing, or has a value that doesn't fit. Arguments of
                the model's call are checked when the drawing is submitted.
            ModelUnavailableError: the model can't be opened.
        """
        if not self.model.family:  # it couldn't be opened
            raise ModelUnavailableError(self.model.problem)
        known = parameters(self.model)
        for name in body.fields:
            self._check_known(name, known)
        fields = {name: _converted(name, value, known) if body.texts else value for name, value in body.fields.items()}
        for name, kind in KINDS.items():
            if name in fields:
                _check(name, fields[name], kind)
        reply, encoding = _reply(fields), self._encoding(fields)
        arguments, changed = self._arguments(fields, known)
        sides = {"height": SIZE, "width": SIZE} if SIZE in fields else {}
        drawing = Drawing(
            model=fields.get("model", ""),
            arguments=arguments,
            names={COUNT_ARGUMENT: COUNT, MASK_ARGUMENT: MASK, **sides},
            adapters=fields.get(ADAPTERS, {}),
            encoding=encoding,
            partial_images=reply.partial_images,
            client=self.client,
        )
        ignored = _ignored(fields, reply, encoding)
        headers = {**changed, **({f"{OWN_HEADERS}ignored": ", ".join(ignored)} if ignored else {})}
        return Asked(drawing, reply, arguments[PROMPT], self._known_size(arguments, body), headers=headers)

    def _encoding(self, fields: Mapping[str, Any]) -> Encoding:
        picture_format = fields.get("output_format", DEFAULT_FORMAT)
        return Encoding(picture_format, fields.get("output_compression"), self.configuration.metadata)

    def _check_known(self, name: str, known: Mapping[str, Argument]) -> None:
        if name in known or name in KINDS or name in IGNORED_NAMES:
            return
        close = difflib.get_close_matches(clipped(name), [*known, *KINDS], n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        message = (
            f"there is no field {shown(name)}{hint}; besides OpenAI's there are {ADAPTERS}, and for {self.model.name} "
            f"{', '.join(sorted(known.keys() - {COUNT, PROMPT}))}"
        )
        raise HTTPFailure(400, message, "unknown_parameter", clipped(name))

    def _arguments(
        self, fields: Mapping[str, Any], known: Mapping[str, Argument]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The arguments of the call, and headers that say where a size is another than the one asked for."""
        arguments = {COUNT_ARGUMENT if name == COUNT else name: fields[name] for name in known if name in fields}
        prompt = arguments.setdefault(PROMPT, self.prompt)
        if prompt is None:
            raise HTTPFailure(
                400, "prompt is missing; give a text, which may be empty", "missing_required_parameter", PROMPT
            )
        if not isinstance(prompt, str):
            raise HTTPFailure(400, f"prompt is {shown(prompt)}; give one text", "invalid_value", PROMPT)
        asked = fields.get(SIZE) or AUTO  # null leaves it out, too
        size = size_to_draw(asked, self.model, strict=self.configuration.strict_models)
        if size is None:
            return arguments, {}
        if both := arguments.keys() & {"height", "width"}:
            message = f"size and {' and '.join(sorted(both))} were given; give one of them"
            raise HTTPFailure(400, message, "invalid_value", SIZE)
        changed = {f"{OWN_HEADERS}size": f"{size} instead of {asked}"} if str(size) != asked else {}
        return {**arguments, "height": size.height, "width": size.width}, changed

    def _known_size(self, arguments: Mapping[str, Any], body: Body) -> str:
        sides = arguments if body.pictures else {**self.model.takes, **arguments}
        width, height = sides.get("width"), sides.get("height")
        return AUTO if width is None or height is None else f"{width}x{height}"


def with_pictures(asked: Asked, image: Image.Image, mask: Image.Image | None) -> Asked:
    """The request with its init image.

    Transparent parts of the mask are drawn anew, and those of the image itself without a mask.

    Raises:
        HTTPFailure: the mask has no transparency, or another size than the image.
    """
    if mask is not None and mask.size != image.size:
        message = f"mask is {size_of(mask)}, and image {size_of(image)}; give them the same size"
        raise HTTPFailure(400, message, "invalid_value", MASK)
    if mask is not None and mask.mode != "RGBA":
        message = "mask has no transparency; make the parts transparent that are to be drawn anew"
        raise HTTPFailure(400, message, "invalid_value", MASK)
    given: dict[str, Any] = {IMAGE: image.convert("RGB")}
    alpha = (mask or image).getchannel("A") if mask is not None or image.mode == "RGBA" else None
    if alpha is not None and (mask is not None or alpha.getextrema() != (255, 255)):
        given[MASK_ARGUMENT] = ImageChops.invert(alpha)  # an argument of diffusers: white is drawn anew
    drawing = dataclasses.replace(asked.drawing, arguments={**asked.drawing.arguments, **given})
    return dataclasses.replace(asked, drawing=drawing, input_size=size_of(image))


def _converted(name: str, value: Any, known: Mapping[str, Argument]) -> Any:
    """The value that a form's text means, by the field's kind.

    What can't be converted stays a text, which the check of the field then refuses.
    """
    if not isinstance(value, str):
        return value
    if name in known:
        return _argument_of_text(known[name], value)
    if name == ADAPTERS:
        return structured(value)
    return from_text(KINDS[name], value) if name in KINDS else value


_SCALARS: Mapping[type, Kind] = {bool: Flag(), int: Whole(0, 0), float: Real(0, 0)}


def _argument_of_text(argument: Argument, text: str) -> Any:
    scalar = argument.check.scalar
    if scalar is not None:
        return from_text(_SCALARS[scalar], text)
    is_text = "Texts" in argument.check.accepts(ValueLimits())
    return text if is_text else structured(text)


def _check(name: str, value: Any, kind: Kind) -> None:
    try:
        kind.check(name, value)
    except SchemaError as error:
        raise HTTPFailure(400, str(error), "invalid_value", name) from error


def _reply(fields: Mapping[str, Any]) -> Reply:
    stream, wanted = fields.get("stream", False), fields.get("response_format")
    by_default = wanted is None and fields.get("model") in _LINKED_BY_DEFAULT
    quality = fields.get("quality")
    return Reply(
        with_data=stream or wanted != "url",
        linked=not stream and (wanted == "url" or by_default),
        stream=stream,
        partial_images=fields.get("partial_images", 0) if stream else 0,
        quality=_QUALITIES.get(quality, _DEFAULT_QUALITY) if isinstance(quality, str) else _DEFAULT_QUALITY,
    )


def _ignored(fields: Mapping[str, Any], reply: Reply, encoding: Encoding) -> list[str]:
    """The fields that were given and change nothing."""
    without_effect = {
        "response_format": reply.stream and fields.get("response_format") == "url",
        "partial_images": not reply.stream,
        "output_compression": encoding.format == DEFAULT_FORMAT,
        **{name: fields.get(name) not in _AS_DRAWN_ANYWAY.get(name, (AUTO,)) for name in IGNORED_NAMES},
    }
    return [name for name in fields if without_effect.get(name, False)]
