"""Declares the kinds and ranges of a file's values, and checks values against them.

:class:`Whole`, :class:`Real`, :class:`Divisor`, :class:`Flag` and :class:`Text` declare single
values; :class:`Many`, :class:`Named` and :class:`Record` declare containers. A value that does not
fit raises :class:`SchemaError`, which names the value's path, such as
``components.unet.inputs.sample.shape[1]``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vinograph.values import shown

_LONGEST_SHOWN = 80
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of surrogate pairs, line and paragraph breaks


class SchemaError(ValueError):
    """A value has the wrong kind or is out of range; the message names it and what would fit."""


class Kind(Protocol):
    """A kind of value."""

    @property
    def wanted(self) -> str:
        """Description of a valid value, for messages."""
        ...

    def check(self, where: str, value: Any) -> None:
        """Raise :class:`SchemaError` if ``value``, at the path ``where``, does not fit."""
        ...


def is_plain(text: str) -> bool:
    """Whether a text is one line without control characters, which would affect a terminal."""
    return text.isprintable() or not any(unicodedata.category(letter) in _CONTROL for letter in text)


def is_number(value: Any) -> bool:
    """Whether a value is an integer or a float; a boolean is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def label(name: Any) -> str:
    """A name for messages: as it is if short and printable, else its shortened ``repr``."""
    return name if isinstance(name, str) and len(name) <= _LONGEST_SHOWN and is_plain(name) else shown(name)


def _refuse(where: str, value: Any, wanted: str) -> SchemaError:
    return SchemaError(f"{where or 'it'} is {shown(value)}, where {wanted} should be")


@dataclass(frozen=True)
class Whole:
    """A whole number from ``least`` to ``most``."""

    least: int
    most: int

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"a whole number from {self.least} to {self.most}"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, and numbers out of range."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            raise _refuse(where, value, self.wanted)


@dataclass(frozen=True)
class Real:
    """A finite number from ``least`` to ``most``."""

    least: float
    most: float

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"a number from {self.least:g} to {self.most:g}"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, NaN, and numbers out of range."""
        if not is_number(value) or not self.least <= value <= self.most:
            raise _refuse(where, value, self.wanted)


@dataclass(frozen=True)
class Divisor:
    """A number of either sign by which f32 values can be divided and multiplied."""

    least: float = 1e-30
    most: float = 1e30

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"a number whose size is from {self.least:g} to {self.most:g}"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, NaN, zero, and numbers that would underflow or overflow."""
        if not is_number(value) or not self.least <= abs(value) <= self.most:
            raise _refuse(where, value, self.wanted)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    wanted: str = "true or false"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds."""
        if not isinstance(value, bool):
            raise _refuse(where, value, self.wanted)


@dataclass(frozen=True)
class Text:
    """One line of at most ``longest`` characters, or one of ``choices`` if there are any."""

    longest: int = 1000
    choices: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"one of {', '.join(self.choices)}" if self.choices else f"a line of at most {self.longest} characters"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, control characters, and texts that are too long or unknown."""
        fits = isinstance(value, str) and len(value) <= self.longest and is_plain(value)
        if not fits or (self.choices and value not in self.choices):
            raise _refuse(where, value, self.wanted)


@dataclass(frozen=True)
class Maybe:
    """null, or a value of the kind ``each``."""

    each: Kind

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"{self.each.wanted}, or null"

    def check(self, where: str, value: Any) -> None:
        """Refuse a value that is neither."""
        if value is not None:
            self.each.check(where, value)


@dataclass(frozen=True)
class Either:
    """A value of one of two kinds."""

    one: Kind
    other: Kind

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"{self.one.wanted}, or {self.other.wanted}"

    def check(self, where: str, value: Any) -> None:
        """Refuse a value that is neither."""
        try:
            self.one.check(where, value)
        except SchemaError:
            try:
                self.other.check(where, value)
            except SchemaError as error:
                raise _refuse(where, value, self.wanted) from error


@dataclass(frozen=True)
class Many:
    """A list of ``least`` to ``most`` values of the kind ``each``."""

    each: Kind
    least: int = 0
    most: int = 64

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"a list of {self.least} to {self.most} entries (each {self.each.wanted})"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, too few or too many entries, and entries that do not fit."""
        if isinstance(value, str) or not isinstance(value, Sequence) or not self.least <= len(value) <= self.most:
            raise _refuse(where, value, self.wanted)
        for index, each in enumerate(value):
            self.each.check(f"{where}[{index}]", each)


@dataclass(frozen=True)
class Named:
    """An object of ``least`` to ``most`` entries: names of kind ``name``, values of ``each``."""

    each: Kind
    least: int = 0
    most: int = 1000
    name: Kind = field(default_factory=lambda: Text(200))

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"an object of {self.least} to {self.most} entries"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, too few or too many entries, and entries that do not fit."""
        if not isinstance(value, Mapping) or not self.least <= len(value) <= self.most:
            raise _refuse(where, value, self.wanted)
        for name, each in value.items():
            self.name.check(f"a name in {where}", name)
            self.each.check(f"{where}.{label(name)}", each)


@dataclass(frozen=True)
class Record:
    """An object with all ``needed`` entries and any ``others``; ``open`` allows unknown ones."""

    needed: Mapping[str, Kind]
    others: Mapping[str, Kind] = field(default_factory=dict)
    open: bool = False

    @property
    def wanted(self) -> str:
        """Description of a valid value."""
        return f"an object with {', '.join(self.needed)}" if self.needed else "an object"

    def check(self, where: str, value: Any) -> None:
        """Refuse other kinds, missing or unknown entries, and entries that do not fit."""
        if not isinstance(value, Mapping):
            raise _refuse(where, value, self.wanted)
        known = {**self.needed, **self.others}
        for name in self.needed:
            if name not in value:
                raise SchemaError(f"{_path(where, name)} is missing; {known[name].wanted} should be there")
        for name, each in value.items():
            if name in known:
                known[name].check(_path(where, name), each)
            elif not self.open:
                raise SchemaError(f"{where or 'it'} has {shown(name)}; known are {', '.join(known)}")


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
