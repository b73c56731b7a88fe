"""The options of the drawing commands, generated from the families' declarations.

This module names no family. An option sets an argument of a call: some options do so in every
family (``--seed``), others as declared in the family's ``options`` (``--steps``,
``--decoder-steps``). This module converts texts to values; the request checks the values, and its
errors name the options.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vinograph import folders
from vinograph.arguments import SWITCH, VAES, check_count, check_seed
from vinograph.cli import completion
from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.request import OPTIONS, Argument, GivenArguments, arguments_of

if TYPE_CHECKING:
    from vinograph.families.contract import Family
    from vinograph.pipeline import Pipeline

DEFAULT_MODEL = "storybook-wuerstchen"

_OR_A_SOURCE = "; or a full VAE in place of the model's own: a file, a directory or a hub id"

# 40 digits are more than any size has, and fewer than Python refuses to parse.
_SIZE = re.compile(r"(-?\d{1,40})\s*[xX×]\s*(-?\d{1,40})")


# Short forms that mean the same in other programs for pictures. Others collide: -s is a seed here, steps there.
_SHORT = {"model": "-m", "output": "-o", "image": "-i"}


def flag(name: str) -> str:
    """The option as it is typed on the command line."""
    return f"--{name.replace('_', '-')}"


def flags(name: str) -> list[str]:
    """The option, and its short form if it has one."""
    return [flag(name), *([_SHORT[name]] if name in _SHORT else [])]


@dataclass(frozen=True)
class Option:
    """One option as ``--help`` shows it. ``metavar`` is None for a switch.

    One that ``repeats`` may be given several times, and its value is the list of all. ``choices`` are
    what a shell completes, where that is no name of something.
    """

    name: str
    metavar: str | None
    help: str
    default: str | None = None
    repeats: bool = False
    choices: tuple[str, ...] = ()

    def parameter(self) -> inspect.Parameter:
        """The option as a parameter that typer reads."""
        names = completion.one_of(*self.choices) if self.choices else completion.BY_OPTION.get(self.name)
        info = typer.Option(
            *flags(self.name),
            metavar=self.metavar,
            help=self.help,
            show_default=bool(self.default),
            autocompletion=None if names is None else completion.completing(names),
        )
        kind: Any = list[str] if self.repeats else bool if self.metavar is None else str | None
        default: Any = [] if self.repeats else False if self.metavar is None else self.default
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
        )


MODEL_HELP = "a model's name, the directory of a bundle or a checkpoint, a single .safetensors file, or a hub id"
BASE_HELP = "the model that has what a single file or a UNet alone lacks"
BASE = Option("base", "MODEL", BASE_HELP)
VAE = "vae"
VAE_HELP = "a full VAE in place of the source's, as a file, a directory or a hub id"
Vae = Annotated[str | None, typer.Option("--vae", metavar="SOURCE", help=VAE_HELP)]
Base = Annotated[str | None, typer.Option("--base", metavar="MODEL", help=BASE_HELP)]
MODEL = Option("model", "REF", MODEL_HELP, DEFAULT_MODEL)
SIZE = Option("size", "WxH", "width and height in pixels; default: the model's own, or near the input picture's")
SEED = Option("seed", "S", "picture i is drawn from seed S + i; default, and -1: a random one, which is reported")
DEVICE = Option(
    "device", "D", "an OpenVINO device, such as CPU or GPU, or one per component: prior=GPU,vqgan=CPU", "CPU"
)
PRECISION = Option("precision", "P", "auto, f32, bf16 or f16, or one per component: prior=bf16,decoder=f32", "auto")
MEMORY = Option("memory", "M", "auto, or low: free each large component as soon as it is no longer needed", "auto")
TUNE = Option(
    "tune", None, "measure which settings are the fastest for int8 and int4 weights, where that isn't known yet"
)
EMBEDDING = Option(
    "embedding",
    "FILE[:WORD]",
    "a textual inversion, drawn by its word: the one given, or in the file, or the file's name; again for more",
    repeats=True,
)
ADAPTER_HELP = "an adapter (LoRA and its kin) and its weight, such as pixel-art.safetensors:0.8; again for more"
ADAPTER = Option("adapter", "FILE[:WEIGHT]", ADAPTER_HELP, repeats=True)
AS_JSON = Option("json", None, "print one JSON object on standard output, and nothing else there")
AsJson = Annotated[bool, typer.Option(flag(AS_JSON.name), help=AS_JSON.help)]


@dataclass(frozen=True)
class DrawingCommand:
    """A command that runs ``call`` on its positional argument ``subject``, which may be optional.

    There may be a ``second`` positional argument. The command has ``options``, and the further
    options of any family that makes the call. ``run`` gets all values by name.
    """

    call: str
    subject: Option
    options: Sequence[Option]
    run: Callable[[Mapping[str, Any]], None]
    subject_required: bool = True
    second: Option | None = None

    def function(self) -> Callable[..., None]:
        """The command as a function that typer reads."""

        def command(**values: Any) -> None:
            self.run(values)

        positions = [_position(self.subject, required=self.subject_required)]
        if self.second is not None:
            positions.append(_position(self.second, required=True))
        options = [*self.options, *self._family_options(), AS_JSON]
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*positions, *(each.parameter() for each in options)]
        )
        command.__doc__ = self.run.__doc__
        return command

    def _family_options(self) -> list[Option]:
        """The options that only some families take; their help names these families."""
        known = {each.name for each in self.options}
        meanings: dict[str, list[tuple[Family, str]]] = {}
        for each in map(registry.family, registry.FAMILIES):
            takes = each.calls[self.call].takes if self.call in each.calls else {}
            for option, argument in each.options.items():
                if option not in known and argument in takes:
                    meanings.setdefault(option, []).append((each, argument))
        return [_family_option(name, families) for name, families in meanings.items()]


def _position(option: Option, *, required: bool) -> inspect.Parameter:
    """A positional argument as a parameter that typer reads."""
    kind = str if required else str | None
    return inspect.Parameter(
        option.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind, typer.Argument(metavar=option.metavar, help=option.help, show_default=False)],
    )


def _family_option(name: str, families: Sequence[tuple[Family, str]]) -> Option:
    """Make the option ``name`` for these families, each with the argument that it sets."""
    family, argument_name = families[0]
    argument = arguments_of(family.request)[argument_name]
    metavar = argument.metavar or {int: "N", float: "G"}.get(argument.check.scalar or str, "X")
    about = f"{', '.join(family.title for family, _ in families)}: {argument.about}"
    choices = tuple(SWITCH) if argument.check.scalar is bool else argument.check.choices
    if name == VAE:
        return Option(name, f"{metavar}|FILE", about + _OR_A_SOURCE, choices=choices)
    return Option(name, metavar, about, choices=choices)


def sources(texts: Mapping[str, str | None]) -> dict[str, str]:
    """The other sources that a model is opened with: ``--base``, and ``--vae`` where it is no choice of VAE."""
    found = {name: text for name in (BASE.name, VAE) if (text := texts.get(name)) is not None}
    return {name: text for name, text in found.items() if name != VAE or _is_source(text)}


def named_sources(vae: str | None, base: str | None) -> dict[str, str]:
    """The other sources that a model is opened with, of a command that chooses no VAE of the model's own."""
    return {name: text for name, text in ((VAE, vae), (BASE.name, base)) if text is not None}


def _is_source(text: str) -> bool:
    """Whether a text names a file, a directory or a repository. Other texts are left to the argument's check."""
    if text in VAES:
        return False
    return "/" in text or text.endswith(".safetensors") or folders.is_there(folders.expand(text))


def count_of(text: str | None) -> int:
    """Parse ``--count``, which sets the number of output files before the call checks it.

    Raises:
        RequestError: it is not a whole number in range.
    """
    return 1 if text is None else int(check_count(flag("count"), _number(text, int)))


def whole_number(name: str, text: str | None) -> int | None:
    """Parse an option that is a whole number above 0; None where it isn't given.

    Raises:
        RequestError: it is something else.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,17}", text):
        raise RequestError(f"{flag(name)} is {text!r}; give a whole number above 0")
    return int(text)


def seed_of(text: str) -> int:
    """Parse ``--seed``, for commands that need it before a model is opened.

    Raises:
        RequestError: it is not a whole number in range.
    """
    return int(check_seed(flag("seed"), _number(text, int)))


def arguments(pipe: Pipeline, call: str, texts: Mapping[str, str | None]) -> GivenArguments:
    """Convert the options in ``texts`` to arguments of ``call``, with the options' names.

    A text is None if the option was not given.

    Raises:
        RequestError: the family doesn't take an option, or ``--size`` is malformed. The message
            lists the options that the family takes.
    """
    takes = pipe.calls[call].takes
    known = {name: argument for name, argument in {**OPTIONS, **pipe.options}.items() if argument in takes}
    declared = arguments_of(registry.family(pipe.model.manifest.family).request)
    values: dict[str, Any] = {}
    names = {argument: flag(name) for name, argument in known.items()}
    for name, text in texts.items():
        if text is None:
            continue
        if name in known:
            values[known[name]] = _value(text, declared[known[name]])
        elif name == SIZE.name and "width" in takes:
            values |= _size(text)
            names |= {side: f"{flag(name)} {text}: the {side}" for side in ("width", "height")}
        else:
            raise RequestError(_not_taken(pipe, name, [*([SIZE.name] if "width" in takes else []), *known]))
    return GivenArguments(values, names)


def arguments_with(extra: Mapping[str, Any], texts: Mapping[str, str | None]) -> Callable[[Pipeline], GivenArguments]:
    """A function that converts ``texts`` as :func:`arguments` does for ``generate``, and adds ``extra`` to them."""

    def found(pipe: Pipeline) -> GivenArguments:
        given = arguments(pipe, "generate", texts)
        return dataclasses.replace(given, values={**extra, **given.values})

    return found


def _not_taken(pipe: Pipeline, name: str, known: Sequence[str]) -> str:
    manifest = pipe.model.manifest
    return (
        f"{flag(name)} is not an option of {manifest.name}, a model of the family {manifest.family}; "
        f"it takes {', '.join(sorted(flag(each) for each in known))}"
    )


def _size(text: str) -> dict[str, int]:
    sides = _SIZE.fullmatch(text.strip())
    if sides is None:
        raise RequestError(f"--size is {text!r}; give width and height in pixels, such as 512x512")
    return {side: int(value) for side, value in zip(("width", "height"), sides.groups(), strict=True)}


def _value(text: str, argument: Argument) -> Any:
    """Parse ``text``, or return it for the argument's check to refuse if it can't be parsed."""
    kind = argument.check.scalar
    if kind is bool:
        return SWITCH.get(text, text)
    return text if kind is None else _number(text, kind)


def _number(text: str, kind: type[int] | type[float]) -> int | float | str:
    with contextlib.suppress(ValueError):
        return kind(text)
    return text


def per_component(text: str) -> str | dict[str, str]:
    """Parse ``--device`` or ``--precision``: one value, or ``component=value`` between commas.

    A device may itself contain commas: ``prior=HETERO:GPU,CPU,vqgan=CPU``.
    """
    if "=" not in text:
        return text
    values: dict[str, str] = {}
    for piece in text.split(","):
        name, equals, value = piece.partition("=")
        if equals:
            values[name.strip()] = value.strip()
        elif values:
            values[[*values][-1]] += f",{piece.strip()}"
        else:
            raise RequestError(f"{text!r} names a component only after its first comma; give component=value for each")
    return values


def _names_embedding(text: str) -> bool:
    from vinograph.models.textual_inversion import by_name

    return Path(text).is_file() or text.endswith(".safetensors") or by_name(text) is not None


def embeddings_of(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parse each ``--embedding``: a file, or a file and a word after the last colon.

    Returns the files by word; those without a word are under an empty one.
    """
    files: dict[str, list[str]] = {}
    for text in texts:
        file, _, word = text.rpartition(":")
        if Path(text).exists() or not _names_embedding(file):
            file, word = text, ""
        files.setdefault(word, []).append(file)
    return files
