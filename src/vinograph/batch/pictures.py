"""Makes a list of pictures of rows: texts are spelled out, settings combined, seeds chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vinograph.arguments import MAX_COUNT
from vinograph.batch.keys import Keys, canonical, derived_seed
from vinograph.batch.rows import PROMPT, PromptFile, Row
from vinograph.errors import RequestError
from vinograph.noise import MAX_SEED
from vinograph.request import Argument
from vinograph.templates import Template, TemplateError, Wildcards
from vinograph.values import clipped, shown

_SEED, _COUNT = "seed", "num_images_per_prompt"
_NOT_IN_ROWS = ("output_type",)
IMAGES = ("image", "mask_image")
"""The arguments that name files."""


@dataclass(frozen=True)
class Picture:
    """A picture to draw: the number of its row, its key, and its arguments; or why it can't be."""

    row: int
    key: str
    arguments: Mapping[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class Expansion:
    """How rows become pictures.

    ``common`` are arguments of all rows, which a row's own replace. ``grid`` are further arguments
    to combine with each row. ``declared`` are the arguments that the model takes. Columns in
    ``ignored`` are left out. Of a text that stands for more than ``samples`` texts, so many are
    drawn. ``verbatim`` draws texts as they stand.
    """

    declared: Mapping[str, Argument]
    common: Mapping[str, Any] = field(default_factory=dict)
    grid: Sequence[Mapping[str, Any]] = ({},)
    ignored: Sequence[str] = ()
    wildcards: Wildcards = field(default_factory=lambda: Wildcards(None))
    samples: int | None = None
    verbatim: bool = False

    def check_columns(self, file: PromptFile) -> None:
        """Refuse a file that has columns which are no arguments.

        Raises:
            RequestError: it has.
        """
        for name in file.columns:
            if name not in self.ignored and not self._taken(name):
                raise RequestError(
                    f"{file.path} has the column {clipped(name)}, which the model doesn't take; it takes "
                    f"{', '.join(each for each in self.declared if self._taken(each))}. "
                    f"--ignore {clipped(name)} leaves a column out"
                )

    def count(self, file: PromptFile) -> int:
        """The number of pictures that a file stands for, with those that are the same."""
        return sum(self._count(row, file) for row in file.read())

    def pictures(self, file: PromptFile, keys: Keys) -> Iterator[Picture]:
        """All pictures that a file stands for, in order."""
        for row in file.read():
            if row.error is not None:
                yield _refused(row, keys, row.error)
                continue
            try:
                yield from self._of_row(row, self._values(row, file), keys, file)
            except (RequestError, TemplateError) as error:
                yield _refused(row, keys, str(error))

    def _taken(self, name: str) -> bool:
        known = self.declared.get(name)
        return known is not None and name not in _NOT_IN_ROWS and (known.recorded or name in IMAGES)

    def _values(self, row: Row, file: PromptFile) -> dict[str, Any]:
        """The row's arguments, with those that all rows have.

        Raises:
            RequestError: one is none that the model takes, or is no text where one should be.
        """
        values = {name: value for name, value in row.values.items() if value is not None and name not in self.ignored}
        for name, value in values.items():
            if not self._taken(name):
                raise RequestError(f"the row has {clipped(name)}, which the model doesn't take")
            if (self.declared[name].per_prompt or name in IMAGES) and not isinstance(value, str):
                raise RequestError(f"{name} is {shown(value)}; a row has one text there")
            values[name] = _converted(value, self.declared[name].check.scalar, from_text=file.texts)
        if PROMPT not in values:
            raise RequestError("the row has no prompt")
        return {**self.common, **values}

    def _of_row(self, row: Row, values: dict[str, Any], keys: Keys, file: PromptFile) -> Iterator[Picture]:
        for name in IMAGES:
            if name in row.values:
                values[name] = str(file.path.parent / values[name])
        for settings in self.grid:
            for texts in self._texts(values):
                for arguments in _each_seed({**settings, **values, **texts}, self._text_names(values)):
                    yield _named(row, arguments, keys)

    def _text_names(self, values: Mapping[str, Any]) -> list[str]:
        return [name for name in values if name in self.declared and self.declared[name].per_prompt]

    def _templates(self, values: Mapping[str, Any]) -> dict[str, Template]:
        if self.verbatim:
            return {}
        return {
            name: self.wildcards.template(values[name])
            for name in self._text_names(values)
            if isinstance(values[name], str)
        }

    def _texts(self, values: Mapping[str, Any]) -> Iterator[dict[str, str]]:
        templates = self._templates(values)
        return self._combined(list(templates.items()), values)

    def _combined(self, templates: list[tuple[str, Template]], values: Mapping[str, Any]) -> Iterator[dict[str, str]]:
        """All combinations, one after the other: there may be more than memory holds."""
        if not templates:
            yield {}
            return
        (name, template), *others = templates
        for index in template.indices(self.samples, f"{name} {values[name]}"):
            for more in self._combined(others, values):
                yield {name: template.text(index), **more}

    def _count(self, row: Row, file: PromptFile) -> int:
        try:
            values = self._values(row, file)
            count = _count_of(values)
            for template in self._templates(values).values():
                count *= template.count if self.samples is None else min(self.samples, template.count)
        except (RequestError, TemplateError):
            return 1
        return count * len(self.grid)


def _refused(row: Row, keys: Keys, error: str) -> Picture:
    return Picture(row.number, keys.of({"refused": canonical(row.values).decode()}), row.values, error)


def _named(row: Row, arguments: Mapping[str, Any], keys: Keys) -> Picture:
    try:
        return Picture(row.number, keys.of(arguments), arguments)
    except (OSError, ValueError) as error:  # of a name that no file can have
        what = getattr(error, "filename", None) or "its picture"
        reason = f"{clipped(str(what))} can't be read: {getattr(error, 'strerror', None) or error}"
        return Picture(row.number, Keys({}).of({"refused": canonical(arguments).decode()}), arguments, reason)


def _count_of(values: Mapping[str, Any]) -> int:
    count = values.get(_COUNT, 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise RequestError(f"{_COUNT} is {shown(count)}; give a whole number from 1 to {MAX_COUNT:,}")
    return count


def _each_seed(arguments: dict[str, Any], texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The arguments of each picture of a row; without a seed, one is derived from its texts."""
    count = _count_of(arguments)
    one = {name: value for name, value in arguments.items() if name != _COUNT}
    seed = one.get(_SEED)
    if seed is None:
        seed = derived_seed({name: one[name] for name in texts})
    if count == 1:
        yield {**one, _SEED: seed}
        return
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise RequestError(f"seed is {shown(seed)}; give a whole number")
    for index in range(count):
        yield {**one, _SEED: (seed + index) % (MAX_SEED + 1)}


def _converted(value: Any, kind: type[Any] | None, *, from_text: bool) -> Any:
    """A value as its argument's kind, where it is the same; any other stays, for the check to refuse."""
    if from_text and isinstance(value, str) and kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            return value
    if from_text and kind is bool:
        return {"true": True, "false": False}.get(str(value).lower(), value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value
