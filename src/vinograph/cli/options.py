"""The options of the drawing commands: made from what the families say that they take, and checked by their schema.

No family is known here by name. An option sets an argument of a call: some do so in every family (``--seed``), the
others where the family's ``options`` say so (``--steps``, ``--decoder-steps``).
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.request import FIELDS, OPTIONS, SWITCH, Fields, Request, fields_of, kind_of, size_limits

if TYPE_CHECKING:
    from vinograph.families.contract import Family
    from vinograph.pipeline import Pipeline

DEFAULT_MODEL = "storybook-wuerstchen"

_SIZE = re.compile(r"(-?\d{1,40})\s*[xX×]\s*(-?\d{1,40})")


def flag(name: str) -> str:
    """The option as it is typed."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Option:
    """One option as ``--help`` shows it. ``metavar`` is None for a switch."""

    name: str
    metavar: str | None
    about: str
    default: str | None = None

    def parameter(self) -> inspect.Parameter:
        """The option as a parameter that typer reads."""
        info = typer.Option(flag(self.name), metavar=self.metavar, help=self.about, show_default=bool(self.default))
        kind = bool if self.metavar is None else str | None
        default = False if self.metavar is None else self.default
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
        )


MODEL_ABOUT = "a model's name, the directory of a bundle or a checkpoint, or a hub id"
MODEL = Option("model", "REF", MODEL_ABOUT, DEFAULT_MODEL)
SIZE = Option("size", "WxH", "width and height in pixels; default: the model's own, or near the input picture's")
SEED = Option("seed", "S", "picture i is drawn from seed S + i; default: a random one, which is reported")
DEVICE = Option(
    "device", "D", "an OpenVINO device, such as CPU or GPU, or one per component: prior=GPU,vqgan=CPU", "CPU"
)
PRECISION = Option("precision", "P", "auto, f32, bf16 or f16, or one per component: prior=bf16,decoder=f32", "auto")
MEMORY = Option("memory", "M", "auto, or low: free each large component as soon as it is done with", "auto")
AS_JSON = Option("json", None, "print one JSON object on standard output, and nothing else there")
AsJson = Annotated[bool, typer.Option(flag(AS_JSON.name), help=AS_JSON.about)]


@dataclass(frozen=True)
class DrawingCommand:
    """A command that makes ``call`` of ``subject``: it takes that by position, and ``options`` by name.

    It takes what any family's call takes besides. ``run`` gets all that was told, by name.
    """

    call: str
    subject: Option
    options: Sequence[Option]
    run: Callable[[Mapping[str, Any]], None]

    def function(self) -> Callable[..., None]:
        """The command as a function that typer reads."""

        def command(**told: Any) -> None:
            self.run(told)

        position = inspect.Parameter(
            self.subject.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            annotation=Annotated[
                str, typer.Argument(metavar=self.subject.metavar, help=self.subject.about, show_default=False)
            ],
        )
        options = [*self.options, *self._family_options(), AS_JSON]
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [position, *(each.parameter() for each in options)]
        )
        command.__doc__ = self.run.__doc__
        return command

    def _family_options(self) -> list[Option]:
        """The options that only some families take, each with the names of the families that do."""
        known = {each.name for each in self.options}
        meanings: dict[str, list[tuple[Family, str]]] = {}
        for each in map(registry.family, registry.FAMILIES):
            takes = each.calls[self.call].takes if self.call in each.calls else {}
            for option, argument in each.options.items():
                if option not in known and argument in takes:
                    meanings.setdefault(option, []).append((each, argument))
        return [_family_option(name, families) for name, families in meanings.items()]


def _family_option(name: str, families: Sequence[tuple[Family, str]]) -> Option:
    """The option ``name``, for each of the families that take it with the argument that it sets there."""
    first, argument = families[0]
    metadata = fields_of(first.request)[argument].metadata
    metavar = metadata["metavar"] or {int: "N", float: "G"}.get(kind_of(argument, first.request), "X")
    return Option(name, metavar, f"{', '.join(family.title for family, _ in families)}: {metadata['about']}")


def count_of(told: Mapping[str, Any]) -> int:
    """``--count``, which decides how many files are written.

    Raises:
        RequestError: it is not a whole number in range.
    """
    text = told.get("count")
    return 1 if text is None else int(_checked("count", "num_images_per_prompt", text, {}))


def seed_of(text: str) -> int:
    """``--seed``, where it is wanted before a model is opened.

    Raises:
        RequestError: it is not a whole number in range.
    """
    return int(_checked("seed", "seed", text, {}))


def arguments(pipe: Pipeline, call: str, told: Mapping[str, str | None]) -> dict[str, Any]:
    """The arguments of ``call`` for the options in ``told``; those that are None were not given.

    Raises:
        RequestError: naming the option, what was given, and what would do; or the options that the family takes.
    """
    takes, limits = pipe.calls[call].takes, {**pipe.model.manifest.limits, **pipe.calls[call].limits}
    kind = registry.family(pipe.model.manifest.family).request
    known = {name: argument for name, argument in {**OPTIONS, **pipe.options}.items() if argument in takes}
    result: dict[str, Any] = {}
    for name, text in told.items():
        if text is None:
            continue
        if name in known:
            result[known[name]] = _checked(name, known[name], text, limits, kind)
        elif name != "size" or "width" not in takes:
            raise RequestError(_not_taken(pipe, name, [*(["size"] if "width" in takes else []), *known]))
    if (text := told.get("size")) is not None:
        result |= _size(text, size_limits({**takes, **result}, limits))
    _check_needs(known, result, fields_of(kind))
    return result


def _check_needs(known: Mapping[str, str], given: Mapping[str, Any], fields: Fields) -> None:
    """Refuse an option without the one that it is pointless without. ``known`` has the argument of each option."""
    options = {argument: name for name, argument in known.items()}
    for argument in given.keys() & options.keys():
        for needs in fields[argument].metadata["needs"]:
            if needs in options and needs not in given:
                about = fields[needs].metadata["about"]
                raise RequestError(f"{flag(options[argument])} needs {flag(options[needs])}: {about}")


def _not_taken(pipe: Pipeline, name: str, known: Sequence[str]) -> str:
    manifest = pipe.model.manifest
    return (
        f"{flag(name)} is not an option of {manifest.name}, a model of the family {manifest.family}; "
        f"it takes {', '.join(sorted(flag(each) for each in known))}"
    )


def _size(text: str, limits: Mapping[str, Any]) -> dict[str, Any]:
    told = _SIZE.fullmatch(text.strip())
    if told is None:
        raise RequestError(f"--size is {text!r}; give width and height in pixels, such as 512x512")
    return {
        side: FIELDS[side].metadata["check"](f"--size {text}: the {side}", int(value), limits)
        for side, value in zip(("width", "height"), told.groups(), strict=True)
    }


def _checked(name: str, argument: str, text: str, limits: Mapping[str, Any], request: type[Request] = Request) -> Any:
    """The value that ``text`` stands for, checked by the schema under the option's own name."""
    kind = kind_of(argument, request)
    value: Any = text
    if kind in (int, float):
        with contextlib.suppress(ValueError):  # the check below says what would do
            value = kind(text)
    if kind is bool:
        value = SWITCH.get(text, text)
    return fields_of(request)[argument].metadata["check"](flag(name), value, limits)


def per_component(text: str) -> str | dict[str, str]:
    """What ``--device`` and ``--precision`` take: one for all, or ``component=one`` for each, between commas.

    A device may have commas itself: ``prior=HETERO:GPU,CPU,vqgan=CPU``.
    """
    if "=" not in text:
        return text
    told: dict[str, str] = {}
    for piece in text.split(","):
        name, equals, value = piece.partition("=")
        if equals:
            told[name.strip()] = value.strip()
        elif told:
            told[[*told][-1]] += f",{piece.strip()}"
        else:
            raise RequestError(f"{text!r} names a component only after its first comma; give component=value for each")
    return told
