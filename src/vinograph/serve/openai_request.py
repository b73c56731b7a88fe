"""What a client of OpenAI's API asks for: its fields, checked and turned into a drawing.

OpenAI's own fields are declared here. All others are arguments of the model's call, and the schema
of requests checks them.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageChops

from vinograph.arguments import Limits as ValueLimits
from vinograph.families import registry
from vinograph.images import Size, size_of
from vinograph.request import Argument, arguments_of
from vinograph.schema import Flag, Kind, Named, Real, SchemaError, Text, Whole
from vinograph.serve.configuration import Configuration
from vinograph.serve.contract import PICTURE_FORMATS, Drawing, Encoding, ModelInfo
from vinograph.serve.failures import HTTPFailure
from vinograph.serve.openai_body import IMAGE, MASK, Body, converted
from vinograph.serve.openai_sizes import AUTO, size_to_draw
from vinograph.values import clipped, shown

_LONGEST_NAME = 300
_MOST_PARTIAL_IMAGES = 3
_COUNT, _PROMPT, _SIZE, _ADAPTERS = "num_images_per_prompt", "prompt", "size", "adapters"

_KINDS: Mapping[str, Kind] = {
    "model": Text(_LONGEST_NAME),
    _SIZE: Text(20),
    "response_format": Text(choices=("b64_json", "url")),
    "output_format": Text(choices=PICTURE_FORMATS),
    "output_compression": Whole(0, 100),
    "stream": Flag(),
    "partial_images": Whole(0, _MOST_PARTIAL_IMAGES),
    _ADAPTERS: Named(Real(-1000, 1000), most=20),
}
"""OpenAI's fields that have a meaning here, and ``adapters``, which is no argument of a call."""

_IGNORED = (
    *("background", "complexity", "frame_count", "frame_duration_ms", "input_fidelity", "markup", "moderation"),
    *("quality", "safety_identifier", "style", "svg", "user"),
)
"""OpenAI's fields that have no meaning here."""

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
        return frozenset({names.get(each, each) for each in self.drawing.arguments} | {_ADAPTERS, "model"})


def parameters(model: ModelInfo) -> Mapping[str, Argument]:
    """The arguments of the model's call that a client can give as fields, by the fields' names."""
    declared = arguments_of(registry.family(model.family).request)
    recorded = {name: declared[name] for name in model.takes if name in declared and declared[name].recorded}
    return {"n" if name == _COUNT else name: each for name, each in recorded.items() if name != "output_type"}


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
        """
        known = parameters(self.model)
        for name in body.fields:
            self._check_known(name, known)
        fields = {name: _converted(name, value, known) if body.texts else value for name, value in body.fields.items()}
        for name, kind in _KINDS.items():
            if name in fields:
                _check(name, fields[name], kind)
        reply = _reply(fields)
        encoding = Encoding(
            fields.get("output_format", PICTURE_FORMATS[0]),
            fields.get("output_compression"),
            self.configuration.metadata,
        )
        arguments, changed = self._arguments(fields, known)
        drawing = Drawing(
            model=fields.get("model", ""),
            arguments=arguments,
            names={_COUNT: "n", "mask_image": MASK, **({"height": _SIZE, "width": _SIZE} if _SIZE in fields else {})},
            adapters=fields.get(_ADAPTERS, {}),
            encoding=encoding,
            previews=reply.partial_images > 0,
            client=self.client,
        )
        ignored = _ignored(fields, reply, encoding)
        headers = {**changed, **({"x-vinograph-ignored": ", ".join(ignored)} if ignored else {})}
        return Asked(drawing, reply, arguments[_PROMPT], self._known_size(arguments, body), headers=headers)

    def _check_known(self, name: str, known: Mapping[str, Argument]) -> None:
        if name in known or name in _KINDS or name in _IGNORED:
            return
        close = difflib.get_close_matches(clipped(name), [*known, *_KINDS], n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        message = (
            f"there is no field {shown(name)}{hint}; besides OpenAI's there are {_ADAPTERS}, and for {self.model.name} "
            f"{', '.join(sorted(known.keys() - {'n', _PROMPT}))}"
        )
        raise HTTPFailure(400, message, "unknown_parameter", clipped(name))

    def _arguments(
        self, fields: Mapping[str, Any], known: Mapping[str, Argument]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The arguments of the call, and headers that say where a size is another than the one asked for."""
        arguments = {_COUNT if name == "n" else name: fields[name] for name in known if name in fields}
        prompt = arguments.setdefault(_PROMPT, self.prompt)
        if prompt is None:
            raise HTTPFailure(
                400, "prompt is missing; give a text, which may be empty", "missing_required_parameter", _PROMPT
            )
        if not isinstance(prompt, str):
            raise HTTPFailure(400, f"prompt is {shown(prompt)}; give one text", "invalid_value", _PROMPT)
        asked = fields.get(_SIZE, AUTO)
        size = size_to_draw(asked, self.model, strict=self.configuration.strict_models)
        if size is None:
            return arguments, {}
        if both := arguments.keys() & {"height", "width"}:
            message = f"size and {' and '.join(sorted(both))} were given; give one of them"
            raise HTTPFailure(400, message, "invalid_value", _SIZE)
        changed = {} if str(size) == asked else {"x-vinograph-size": f"{size} instead of {asked}"}
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
        given["mask_image"] = ImageChops.invert(alpha)  # an argument of diffusers: white is drawn anew
    drawing = dataclasses.replace(asked.drawing, arguments={**asked.drawing.arguments, **given})
    return dataclasses.replace(asked, drawing=drawing, input_size=size_of(image))


def _converted(name: str, value: Any, known: Mapping[str, Argument]) -> Any:
    """The value of a form's field, by the field's kind."""
    if name in known:
        check = known[name].check
        return converted(value, check.scalar, structured="Texts" not in check.accepts(ValueLimits()))
    kind = _KINDS.get(name)
    scalar = int if isinstance(kind, Whole) else bool if isinstance(kind, Flag) else None
    return converted(value, scalar, structured=isinstance(kind, Named))


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
        "output_compression": encoding.format == "png",
        **{name: fields.get(name) not in _AS_DRAWN_ANYWAY.get(name, (AUTO,)) for name in _IGNORED},
    }
    return [name for name in fields if without_effect.get(name, False)]
