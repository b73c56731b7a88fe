"""The axes of a grid of pictures: which settings there are, their values, and each cell's request.

The settings are the options that the model takes. Values are typed as in A1111's X/Y/Z plot:
``1, 2, 4``, ``1-8``, ``1-8 (+2)``, or ``1-10 [4]`` for four values.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from vinograph.adapters.adaptation import NO_ADAPTERS, Adaptation, adapt
from vinograph.arguments import SWITCH
from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.pipeline import Pipeline
from vinograph.request import Argument, arguments_of, resolve
from vinograph.web.controls import label, options_of
from vinograph.web.jobs import DrawRequest
from vinograph.web.model_pool import Models

MAX_CELLS = 100

PROMPT, MODEL, SIZE, ADAPTERS = "prompt search and replace", "model", "size", "adapter weight"
_SPECIAL = {PROMPT: "Prompt S/R", MODEL: "Model", SIZE: "Size", ADAPTERS: "Adapter weight"}
_NOT_AXES = ("count", "image", "mask", "extend")
_CALL = "generate"
_LONGEST = 20_000  # characters
_DIGITS = r"\d{1,20}(?:\.\d{1,9})?"
_NUMBER = f"-?{_DIGITS}"
_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})(?:\s*\(\s*([+-]?{_DIGITS})\s*\)|\s*\[\s*(\d{{1,4}})\s*\])?")
_SIZE = re.compile(r"(\d{1,6})\s*[x×]\s*(\d{1,6})")


@dataclass(frozen=True)
class Axis:
    """A setting and its values, none of which is there twice."""

    setting: str
    values: tuple[Any, ...]

    @property
    def title(self) -> str:
        """The setting's label."""
        return axis_label(self.setting)

    @property
    def labels(self) -> list[str]:
        """What stands by the row or column of each value."""
        if self.setting == PROMPT:
            return [str(each) for each in self.values]
        return [f"{self.title}: {value_text(each)}" for each in self.values]


NO_AXIS = Axis("", (None,))
"""The axis that isn't there: one value, which changes nothing."""


@dataclass(frozen=True)
class Base:
    """What all cells of a grid have in common.

    ``options`` are the settings that differ from the model's defaults, by the option's name. Another
    model gets those that it takes. ``files`` are the init image's, by argument.
    """

    model: str
    prompt: str
    options: Mapping[str, Any]
    size: tuple[int, int] | None = None
    adapters: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def axis_label(setting: str) -> str:
    """The label of a setting, as the page has it."""
    return _SPECIAL.get(setting) or label(setting)


def settings(pipe: Pipeline, *, adapters: bool) -> list[tuple[str, str]]:
    """The settings that an axis can have with this model, as label and name."""
    names = [PROMPT, MODEL, *(name for name in options_of(pipe) if name not in _NOT_AXES), SIZE]
    return [(axis_label(name), name) for name in [*names, *([ADAPTERS] if adapters else [])]]


def hint(pipe: Pipeline, setting: str, references: Sequence[str]) -> str:
    """An example of a setting's values."""
    side = pipe.model.manifest.limits["native_size"]
    special = {PROMPT: "red, blue, green", MODEL: ", ".join(references[:3]), SIZE: f"{side}x{side}, {side}x{side // 2}"}
    if setting in special:
        return special[setting]
    argument = options_of(pipe).get(setting)
    declared = None if argument is None else _declared(pipe, argument)
    if declared is None:
        return "0.5, 0.8-1 (+0.1)"
    if declared.check.scalar is float:
        most = None if declared.slider is None else declared.slider[1]
        return "1, 2-5 (+1)" if most is None else ", ".join(f"{most * share:g}" for share in (0.5, 0.75, 1))
    if declared.check.scalar is int:
        return "1, 2, 4-8 (+2)"
    if declared.check.scalar is bool:
        return ", ".join(SWITCH)
    return ", ".join(_offered(pipe, str(argument))[:3]) or "one, two"


def parse_axis(pipe: Pipeline, setting: str, text: str, references: Sequence[str]) -> Axis:
    """The axis that a setting and its typed values make; the empty setting makes :data:`NO_AXIS`.

    Raises:
        RequestError: there is no such setting, or a value doesn't fit.
    """
    if not setting:
        return NO_AXIS
    if len(text) > _LONGEST:
        raise RequestError(
            f"the values of {axis_label(setting)} have {len(text):,} characters; give at most {_LONGEST:,}"
        )
    if setting not in _SPECIAL and setting not in options_of(pipe):
        raise RequestError(
            f"{pipe.model.manifest.name} takes no {axis_label(setting)}; choose another setting for the axis"
        )
    values = _values(pipe, setting, text, references)
    if not values:
        example = hint(pipe, setting, references)
        raise RequestError(f"{axis_label(setting)} has no values; give some between commas, such as {example}")
    return Axis(setting, tuple(dict.fromkeys(values)))


def _values(pipe: Pipeline, setting: str, text: str, references: Sequence[str]) -> list[Any]:
    parts = [
        each.strip() for each in next(csv.reader([text.replace("\n", " ")], skipinitialspace=True), []) if each.strip()
    ]
    if setting == MODEL:
        for unknown in [each for each in parts if each not in references]:
            raise RequestError(f"the page has no model {unknown[:100]!r}; it has {', '.join(references)}")
        return parts
    if setting == SIZE:
        return [_size(each) for each in parts]
    if setting == PROMPT:
        return parts
    if setting == ADAPTERS:
        return [float(each) for part in parts for each in _numbers(part, setting)]
    declared = _declared(pipe, options_of(pipe)[setting])
    limits = pipe.calls[_CALL].limits(pipe.model.manifest.limits, {})
    found = [each for part in parts for each in _typed(part, setting, declared)]
    checked = [declared.check(label(setting), each, limits) for each in found]
    return [each[0] if isinstance(each, tuple) and len(each) == 1 else each for each in checked]


def _typed(part: str, setting: str, declared: Argument) -> list[Any]:
    """The values that a part between commas stands for, before they are checked."""
    kind = declared.check.scalar
    if kind is bool:
        return [SWITCH.get(part.lower(), part)]
    if kind is None:
        return [part]
    numbers = _numbers(part, setting)
    return [int(each) if kind is int and each.denominator == 1 else float(each) for each in numbers]


def _numbers(part: str, setting: str) -> list[Fraction]:
    """A number, or those of a range; exact, so that 0.1 added ten times is 1."""
    if re.fullmatch(_NUMBER, part):
        return [Fraction(part)]
    found = _RANGE.fullmatch(part)
    if found is None:
        raise RequestError(
            f"{axis_label(setting)} has the value {part[:100]!r}; "
            "give numbers, or a range such as 1-8, 1-8 (+2) or 1-10 [4]"
        )
    first, last = Fraction(found[1]), Fraction(found[2])
    if found[4] is not None:
        count = int(found[4])
        step = (last - first) / (count - 1) if count > 1 else Fraction(1)
    else:
        step = Fraction(found[3]) if found[3] is not None else Fraction(1 if last >= first else -1)
        if step == 0 or (last - first) * step < 0:
            raise RequestError(f"{axis_label(setting)} has the range {part[:100]!r}, whose step leads nowhere")
        count = int((last - first) / step) + 1
    if count > MAX_CELLS:
        raise RequestError(
            f"{axis_label(setting)} has the range {part[:100]!r} of {count:,} values; a grid has at most {MAX_CELLS}"
        )
    values = [first + index * step for index in range(count)]
    return values if found[4] is None else [_rounded(each, found) for each in values]


def _rounded(value: Fraction, found: re.Match[str]) -> Fraction:
    """A number between two whole ones is whole, too."""
    return value if "." in found[1] + found[2] else Fraction(round(value))


def _size(part: str) -> tuple[int, int]:
    sides = _SIZE.fullmatch(part)
    if sides is None:
        raise RequestError(f"Size has the value {part[:100]!r}; give width and height, such as 512x256")
    return int(sides[1]), int(sides[2])


def _declared(pipe: Pipeline, argument: str) -> Argument:
    return arguments_of(registry.family(pipe.model.manifest.family).request)[argument]


def _offered(pipe: Pipeline, argument: str) -> Sequence[str]:
    return pipe.calls[_CALL].choices.get(argument, ()) or _declared(pipe, argument).check.choices


def value_text(value: Any) -> str:
    """A value as a label has it."""
    if isinstance(value, bool):
        return next(word for word, meaning in SWITCH.items() if meaning is value)
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_axes(columns: Axis, rows: Axis) -> None:
    """Check that two axes make a grid.

    Raises:
        RequestError: there is no axis, both have one setting, or there are too many cells.
    """
    if columns is NO_AXIS and rows is NO_AXIS:
        raise RequestError("choose a setting for an axis of the grid, and give its values")
    if columns.setting == rows.setting:
        raise RequestError(f"both axes have {columns.title}; choose another setting for one of them")
    count = len(columns.values) * len(rows.values)
    if count > MAX_CELLS:
        raise RequestError(f"that is {count:,} pictures; a grid has at most {MAX_CELLS}")


def cell_request(models: Models, base: Base, changes: Sequence[tuple[Axis, Any]]) -> DrawRequest:
    """The request of one cell, in which each axis has one value.

    Raises:
        RequestError: the model of the cell takes no such setting or value.
    """
    changed = {axis.setting: value for axis, value in changes if axis is not NO_AXIS}
    model = changed.get(MODEL, base.model)
    pipe = models.get(model)
    known, own = options_of(pipe), {name for name in changed if name not in _SPECIAL}
    for name in own - known.keys():
        raise RequestError(f"{model} takes no {axis_label(name)}; leave this model or this setting out")
    options = {name: value for name, value in base.options.items() if name in known} | {
        name: changed[name] for name in own
    }
    arguments: dict[str, Any] = {"prompt": base.prompt, **base.files}
    arguments |= {known[name]: value for name, value in options.items()}
    if (size := changed.get(SIZE, base.size)) is not None:
        arguments |= {"width": size[0], "height": size[1]}
    if PROMPT in changed:
        arguments |= _replaced(changes, base.prompt)
    request = registry.family(pipe.model.manifest.family).request
    labels = {argument: label(name) for name, argument in known.items()}
    resolve(arguments, pipe.calls[_CALL], pipe.model.manifest.limits, model, request, labels)
    return DrawRequest(model, _CALL, arguments, _adaptation(pipe, base, changed))


def _replaced(changes: Sequence[tuple[Axis, Any]], prompt: str) -> dict[str, str]:
    """The prompt in which the axis's first value is replaced by this one."""
    axis, value = next((axis, value) for axis, value in changes if axis.setting == PROMPT)
    if axis.values[0] not in prompt:
        raise RequestError(f"the prompt doesn't say {axis.values[0][:100]!r}, which Prompt S/R is to replace")
    return {"prompt": prompt.replace(axis.values[0], value)}


def _adaptation(pipe: Pipeline, base: Base, changed: Mapping[str, Any]) -> Adaptation:
    if ADAPTERS in changed and not base.adapters:
        raise RequestError("Adapter weight is an axis, and there is no adapter; name one under Adapters")
    weights = {name: changed.get(ADAPTERS, weight) for name, weight in base.adapters.items()}
    return adapt(pipe.model, weights) if weights else NO_ADAPTERS
