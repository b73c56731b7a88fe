"""Texts that stand for many: ``{red|blue}`` has alternatives, ``__animal__`` the lines of a file."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vinograph.errors import RequestError

_WILDCARD = re.compile(r"__([A-Za-z0-9][A-Za-z0-9-]*(?:[_/][A-Za-z0-9-]+)*)__")
_DEEPEST = 16


class TemplateError(ValueError):
    """A text names a wildcard that there is not, or one that contains itself."""


class WildcardError(TemplateError):
    """The wildcard ``name`` can't be used."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Template:
    """Parts in a row, each of which is a text, or a choice of templates."""

    parts: tuple[str | tuple[Template, ...], ...]

    @property
    def count(self) -> int:
        """The number of texts that it stands for."""
        return math.prod(sum(each.count for each in part) for part in self.parts if not isinstance(part, str))

    def text(self, index: int) -> str:
        """One of the texts; of neighbours, the last choice differs."""
        texts = []
        for part in reversed(self.parts):
            if isinstance(part, str):
                texts.append(part)
            else:
                index, place = divmod(index, sum(each.count for each in part))
                texts.append(_chosen(part, place))
        return "".join(reversed(texts))

    def indices(self, samples: int | None, seed: str) -> Iterator[int]:
        """All indices, or ``samples`` of them where there are more; equal seeds give equal ones."""
        count = self.count
        if samples is None or count <= samples:
            yield from range(count)
            return
        chosen = random.Random(seed)
        seen: set[int] = set()
        while len(seen) < samples:
            index = chosen.randrange(count)
            if index not in seen:
                seen.add(index)
                yield index


def _chosen(choice: tuple[Template, ...], place: int) -> str:
    for each in choice:
        if place < each.count:
            return each.text(place)
        place -= each.count
    raise IndexError(place)


@dataclass
class Wildcards:
    """The wildcards of a folder: ``animal`` is the lines of ``animal.txt``; None has none."""

    folder: Path | None
    _read: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def template(self, text: str) -> Template:
        """Parse a text.

        Raises:
            TemplateError: it names a wildcard that there is not, or one that contains itself.
        """
        if "{" not in text and "__" not in text:
            return Template((text,))
        return self._parsed(text, 0)

    def _parsed(self, text: str, depth: int) -> Template:
        if depth > _DEEPEST:
            raise TemplateError(f"wildcards or alternatives are nested more than {_DEEPEST} deep")
        parts: list[str | tuple[Template, ...]] = []
        while text:
            begin = re.search(rf"\{{|{_WILDCARD.pattern}", text)
            if begin is None:
                break
            parts.append(text[: begin.start()])
            if begin[1] is not None:
                lines = self._lines(begin[1])
                parts.append(tuple(self._parsed(line, depth + 1) for line in lines))
                text = text[begin.end() :]
                continue
            pieces, length = _alternatives(text[begin.start() :])
            if len(pieces) < 2:  # braces without alternatives stay
                parts.append("{")
            else:
                parts.append(tuple(self._parsed(piece, depth + 1) for piece in pieces))
            text = text[begin.start() + length :]
        return Template((*parts, text))

    def _lines(self, name: str) -> tuple[str, ...]:
        if self.folder is None:
            raise WildcardError(
                name, f"__{name}__ is a wildcard; name the folder of {name}.txt by --wildcards, or --verbatim"
            )
        if name not in self._read:
            self._read[name] = _file_lines(self.folder, name)
        return self._read[name]


def _file_lines(folder: Path, name: str) -> tuple[str, ...]:
    file = folder / f"{name}.txt"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WildcardError(name, f"the wildcard __{name}__ can't be read: {error}") from error
    lines = tuple(line for each in text.splitlines() if (line := each.strip()) and not line.startswith("#"))
    if not lines:
        raise WildcardError(name, f"the wildcard __{name}__ has no lines in {file}")
    return lines


def _alternatives(text: str) -> tuple[list[str], int]:
    """The alternatives of the braces at the begin of a text, and their length; none if they are not closed."""
    depth, pieces, begin = 0, [], 1
    for place, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if (letter == "|" and depth == 1) or depth == 0:
            pieces.append(text[begin:place])
            begin = place + 1
        if depth == 0:
            return (pieces, place + 1) if len(pieces) > 1 else ([], 1)
    return [], 1


def open_wildcards(folder: str | None) -> Wildcards:
    """The wildcards in a folder.

    Raises:
        RequestError: there is no such folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise RequestError(f"--wildcards {folder} is no folder; name one with files such as animal.txt")
    return Wildcards(None if folder is None else Path(folder))
