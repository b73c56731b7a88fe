r"""Reads the syntax of weighted prompts, as A1111's web UI and as ComfyUI define it.

In both, ``(word)`` weighs 1.1, ``(word:1.3)`` weighs 1.3, and ``\(`` is a parenthesis of the text.
They differ in the rest:

- A1111: weights of nested parentheses are multiplied. ``[word]`` divides by 1.1. A bracket without
  a partner reaches to the end of the prompt. A backslash also escapes brackets and itself.
- ComfyUI: a number replaces the weight of the parentheses around it. Square brackets are text.

``BREAK`` begins a new chunk. It is a word of A1111's, read in both here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

STRONGER = 1.1
"""The weight of a pair of parentheses without a number."""

_TOKEN = re.compile(r"\\[()\[\]\\]?|[(\[\])]|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_NUMBERED = re.compile(r"\([^()]*:\s*[+-]?[.\d]+\s*\)")
_SQUARE = re.compile(r"\[([^\[\]()]*)\]")
_TIME = re.compile(r"\s*[.\d]+\s*")
_PARTNERS = {")": "(", "]": "["}
_DEEPEST = 100  # pairs of parentheses within each other; what is deeper is text
# ComfyUI's escapes: a pair of characters that no tokenizer reads.
_CLOSED, _OPENED = "\0\1", "\0\2"


@dataclass(frozen=True)
class Segment:
    """A stretch of a prompt with one weight. With ``breaks``, it begins a new chunk."""

    text: str
    weight: float = 1.0
    breaks: bool = False


Segments = tuple[Segment, ...]


@dataclass
class _Piece:
    """A text, or a bracket that is open or closed here; ``weight`` is that of an opened bracket."""

    text: str
    opens: str = ""
    closes: str = ""
    weight: float = 1.0


def plain_segments(prompt: str) -> Segments:
    """The whole prompt at weight 1."""
    return (Segment(prompt),)


def a1111_segments(prompt: str) -> Segments:
    """Read a prompt by A1111's rules. Stretches of one weight are joined."""
    products: dict[str, list[float]] = {"(": [1.0], "[": [1.0]}
    found: list[Segment] = []
    for piece in _pieces(prompt):
        if piece.opens:
            products[piece.opens].append(products[piece.opens][-1] * piece.weight)
        elif piece.closes:
            products[piece.closes].pop()
        elif piece.text:
            found.append(Segment(piece.text, products["("][-1] * products["["][-1]))
    return tuple(_joined(found)) or plain_segments("")


def _pieces(prompt: str) -> Iterator[_Piece]:
    """The prompt's texts and brackets; each opened bracket has the weight that its partner gives."""
    pieces: list[_Piece] = []
    opened: dict[str, list[_Piece]] = {"(": [], "[": []}
    for match in _TOKEN.finditer(prompt):
        text, number = match[0], _number(match["weight"])
        partner = "(" if number is not None else _PARTNERS.get(text, "")
        if text.startswith("\\"):
            pieces.append(_Piece(text[1:]))
        elif text in opened:
            pieces.append(_Piece("", opens=text, weight=STRONGER if text == "(" else 1 / STRONGER))
            opened[text].append(pieces[-1])
        elif partner and opened[partner]:
            start = opened[partner].pop()
            start.weight = start.weight if number is None else number
            pieces.append(_Piece("", closes=partner))
        else:
            pieces.append(_Piece(text))
    return iter(pieces)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:  # such as 1.2.3, which is text
        return None


def _joined(segments: Iterable[Segment]) -> Iterator[Segment]:
    for weight, alike in groupby(segments, lambda each: each.weight):
        yield Segment("".join(each.text for each in alike), weight)


def comfyui_segments(prompt: str) -> Segments:
    """Read a prompt by ComfyUI's rules. Parentheses without a partner are text."""
    escaped = prompt.replace("\\)", _CLOSED).replace("\\(", _OPENED)
    found: list[Segment] = []
    levels = [(_items(escaped), 1.0)]
    while levels:
        items, weight = levels[-1]
        item = next(items, None)
        if item is None:
            levels.pop()
        elif _is_group(item) and len(levels) <= _DEEPEST:
            text, number = _split_number(item[1:-1])
            levels.append((_items(text), weight * STRONGER if number is None else number))
        else:
            found.append(Segment(_unescaped(item), weight))
    return tuple(found) or plain_segments("")


def _is_group(item: str) -> bool:
    return len(item) > 1 and item[0] == "(" and item[-1] == ")"


def _items(text: str) -> Iterator[str]:
    """The groups in outermost parentheses, and the texts between them."""
    begin = level = 0
    for place, letter in enumerate(text):
        if letter == "(":
            if level == 0 and place > begin:
                yield text[begin:place]
                begin = place
            level += 1
        elif letter == ")":
            level -= 1
            if level == 0:
                yield text[begin : place + 1]
                begin = place + 1
    if begin < len(text):
        yield text[begin:]


def _split_number(text: str) -> tuple[str, float | None]:
    """The text before the last colon and the number after it; all of the text where none is."""
    colon = text.rfind(":")
    try:
        return (text[:colon], float(text[colon + 1 :])) if colon > 0 else (text, None)
    except ValueError:
        return text, None


def _unescaped(text: str) -> str:
    return text.replace(_CLOSED, ")").replace(_OPENED, "(")


SYNTAXES: Mapping[str, Callable[[str], Segments]] = MappingProxyType(
    {"none": plain_segments, "a1111": a1111_segments, "comfyui": comfyui_segments}
)
"""The readers of prompts, by the name of the tool whose rules they follow."""


def split_at_breaks(segments: Segments) -> Segments:
    """The segments without the words ``BREAK``; after each, a segment that breaks begins."""
    found: list[Segment] = []
    for segment in segments:
        for index, text in enumerate(_BREAK.split(segment.text)):
            if text or index:
                found.append(Segment(text, segment.weight, breaks=index > 0))
    return tuple(found) or plain_segments("")


def has_break(prompt: str) -> bool:
    """Whether a prompt has the word ``BREAK``."""
    return _BREAK.search(prompt) is not None


def has_numbers(prompt: str) -> bool:
    """Whether a prompt has weights in numbers, as in ``(word:1.2)``."""
    return _NUMBERED.search(prompt) is not None


def has_schedule(prompt: str) -> bool:
    """Whether a prompt changes while it is drawn, as A1111's ``[cat:dog:0.5]`` and ``[cat|dog]`` do."""
    for text in _SQUARE.findall(prompt):
        _, colon, time = text.rpartition(":")
        if "|" in text or (colon and _TIME.fullmatch(time)):
            return True
    return False
