"""The fields that OpenAI's routes take: OpenAI's own, and the arguments of the model's call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vinograph.arguments import MAX_PROMPT
from vinograph.families import registry
from vinograph.request import Argument, Request, arguments_of
from vinograph.schema import Either, Flag, Kind, Many, Maybe, Named, Real, Text, Whole
from vinograph.serve.contract import PICTURE_FORMATS, ModelInfo
from vinograph.serve.fields import Anything, Base64Picture, Field, Prose
from vinograph.serve.openai_sizes import AUTO, OPENAI_SIZES

COUNT, PROMPT, SIZE, ADAPTERS, IMAGE, MASK = "n", "prompt", "size", "adapters", "image", "mask"
COUNT_ARGUMENT, MASK_ARGUMENT = "num_images_per_prompt", "mask_image"
DEFAULT_FORMAT = PICTURE_FORMATS[0]
MOST_PARTIAL_IMAGES = 3
_LONGEST_NAME = 300
_LONGEST_SIZE = 20
_MOST_ADAPTERS = 20
_STRONGEST = 1000.0  # weight of an adapter
_LARGEST = 1e30
_MOST_INTEGER = 2**64 - 1

FIELDS: tuple[Field, ...] = (
    Field("model", Maybe(Text(_LONGEST_NAME)), "the model that draws; default: the server's first"),
    Field(SIZE, Maybe(Text(_LONGEST_SIZE)), f'"WIDTHxHEIGHT" in pixels, or "{AUTO}"; also {", ".join(OPENAI_SIZES)}'),
    Field("response_format", Maybe(Text(choices=("b64_json", "url"))), "pictures in the response, or their addresses"),
    Field("output_format", Maybe(Text(choices=PICTURE_FORMATS)), "the format of the pictures; default: png"),
    Field("output_compression", Maybe(Whole(0, 100)), "the quality of jpeg and webp; default: 95"),
    Field("stream", Maybe(Flag()), "whether to answer with server-sent events"),
    Field("partial_images", Maybe(Whole(0, MOST_PARTIAL_IMAGES)), "previews of each picture in a stream"),
    Field(
        ADAPTERS,
        Maybe(Named(Real(-_STRONGEST, _STRONGEST), most=_MOST_ADAPTERS)),
        "weights of adapters (LoRA), by their names in the server's folder of adapters",
    ),
)
"""OpenAI's fields that mean something here and set no argument of the call, and ``adapters``."""

IGNORED: tuple[Field, ...] = tuple(
    Field(name, Anything(), "has no effect; named in the response header x-vinograph-ignored")
    for name in (
        *("background", "complexity", "frame_count", "frame_duration_ms", "input_fidelity", "markup", "moderation"),
        *("quality", "safety_identifier", "style", "svg", "user"),
    )
)
"""OpenAI's fields that mean nothing here."""

KINDS: Mapping[str, Kind] = {each.name: each.schema for each in FIELDS}
IGNORED_NAMES = frozenset(each.name for each in IGNORED)

_PICTURES = (
    Field(
        IMAGE,
        Either(Base64Picture(), Many(Base64Picture(), 1, 1)),
        "the picture to start from: PNG, JPEG or WebP",
        "image",
        needed=True,
    ),
    Field(MASK, Maybe(Base64Picture()), "a picture that is transparent where to draw anew", MASK_ARGUMENT),
)


def parameters(model: ModelInfo) -> Mapping[str, Argument]:
    """The arguments of the model's call that a client can give, by the fields' names."""
    return _by_field(registry.family(model.family).request, model.takes)


def _by_field(kind: type[Request], taken: Iterable[str]) -> Mapping[str, Argument]:
    declared = arguments_of(kind)
    recorded = {name: declared[name] for name in taken if name in declared and declared[name].recorded}
    return {COUNT if name == COUNT_ARGUMENT else name: each for name, each in recorded.items() if name != "output_type"}


def _shared(*, prompt_needed: bool) -> tuple[Field, ...]:
    """The fields of all routes; the arguments are those that several families take."""
    arguments = _by_field(Request, arguments_of(Request))
    return (
        Field(PROMPT, Prose(MAX_PROMPT), "what to draw", PROMPT, needed=prompt_needed),
        *FIELDS,
        *(Field(name, _kind_of(each), each.about, name) for name, each in arguments.items() if name != PROMPT),
        *IGNORED,
    )


def _kind_of(argument: Argument) -> Kind:
    """The kind of an argument's values, for documents: the argument's own check knows its range."""
    if argument.check.scalar is bool:
        return Maybe(Flag())
    if argument.check.scalar is int:
        return Maybe(Whole(-_MOST_INTEGER, _MOST_INTEGER))
    if argument.check.scalar is float:
        return Maybe(Real(-_LARGEST, _LARGEST))
    return Maybe(Text(choices=argument.check.choices)) if argument.check.choices else Anything()


GENERATIONS: tuple[Field, ...] = _shared(prompt_needed=True)
EDITS: tuple[Field, ...] = (*_PICTURES, *_shared(prompt_needed=True))
VARIATIONS: tuple[Field, ...] = (*_PICTURES, *_shared(prompt_needed=False))
"""What the three routes take, for the OpenAPI document. A family's own arguments are fields, too."""
