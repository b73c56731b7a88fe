"""The syntax of weighted prompts, compared with the tools' own definitions of it."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vinograph.prompt_syntax import (
    SYNTAXES,
    Segment,
    Segments,
    a1111_segments,
    comfyui_segments,
    has_break,
    has_numbers,
    has_schedule,
    split_at_breaks,
)

SPECIAL, ESCAPED = re.compile(r"[][()\\]"), r"\\\g<0>"
SYNTAX = st.text(alphabet="ab ()[]\\:.1-B,", max_size=40)


def pairs(segments: Segments) -> list[tuple[str, float]]:
    return [(each.text, round(each.weight, 6)) for each in segments]


def by_ranges(prompt: str) -> list[tuple[str, float]]:
    """A1111's rule as its documentation has it: a closed bracket multiplies the weights of all that is in it."""
    weighted: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        weighted[start:] = [(text, weight * factor) for text, weight in weighted[start:]]

    place = 0
    while place < len(prompt):
        rest = prompt[place:]
        number = re.match(r":\s*([+-]?[.\d]+)\s*\)", rest)
        if rest[0] == "\\":
            weighted.append((rest[1:2] if rest[1:2] in tuple("()[]\\") else "", 1.0))
            place += 2 if rest[1:2] in tuple("()[]\\") else 1
        elif rest[0] in opened:
            opened[rest[0]].append(len(weighted))
            place += 1
        elif number and opened["("] and number[1].count(".") < 2 and re.search(r"\d", number[1]):
            multiply(opened["("].pop(), float(number[1]))
            place += len(number[0])
        elif number and (number[1].count(".") > 1 or not re.search(r"\d", number[1]) or not opened["("]):
            weighted.append((number[0], 1.0))
            place += len(number[0])
        elif rest[0] in ")]" and opened["(" if rest[0] == ")" else "["]:
            multiply(opened["(" if rest[0] == ")" else "["].pop(), 1.1 if rest[0] == ")" else 1 / 1.1)
            place += 1
        else:
            weighted.append((rest[0], 1.0))
            place += 1
    for bracket, factor in (("(", 1.1), ("[", 1 / 1.1)):
        for start in opened[bracket]:
            multiply(start, factor)
    return letters(weighted)


def letters(weighted: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(letter, round(weight, 6)) for text, weight in weighted for letter in text]


def recursively(prompt: str, weight: float = 1.0) -> list[tuple[str, float]]:
    """ComfyUI's rule, level by level."""
    found: list[tuple[str, float]] = []
    current, level = "", 0
    groups: list[str] = []
    for letter in prompt:
        level += (letter == "(") - (letter == ")")
        if letter == "(" and level == 1 and current:
            groups.append(current)
            current = ""
        current += letter
        if letter == ")" and level == 0:
            groups.append(current)
            current = ""
    for group in [*groups, current] if current else groups:
        if len(group) < 2 or group[0] != "(" or group[-1] != ")":
            found.append((group, weight))
            continue
        inner, own = group[1:-1], weight * 1.1
        head, colon, tail = inner.rpartition(":")
        with contextlib.suppress(ValueError):
            inner, own = (head, float(tail)) if colon and head else (inner, own)
        found += recursively(inner, own)
    return found


@given(SYNTAX)
def test_a1111s_weights(prompt: str) -> None:
    found = [(each.text, each.weight) for each in a1111_segments(prompt)]
    assert letters(found) == by_ranges(prompt)


@given(st.text(alphabet="ab ():.1-B,", max_size=40))
def test_comfyuis_weights(prompt: str) -> None:
    assert letters([(each.text, each.weight) for each in comfyui_segments(prompt)]) == letters(recursively(prompt))


@given(st.lists(st.tuples(st.text(max_size=8), st.floats(-9, 9).map(lambda each: round(each, 3))), max_size=6))
def test_what_is_written_is_read_again(stretches: list[tuple[str, float]]) -> None:
    """Any text, with its brackets escaped, comes back with its weight, by A1111's rules."""
    text = "".join(f"({SPECIAL.sub(ESCAPED, own)}:{weight})" for own, weight in stretches)
    assert letters([(each.text, each.weight) for each in a1111_segments(text)]) == letters(stretches)


@given(SYNTAX, st.integers(1, 4))
def test_weights_multiply(prompt: str, depth: int) -> None:
    """Parentheses around a whole multiply each weight, where the whole has no bracket without a partner."""
    closed = re.sub(r"[()\[\]\\:]", "", prompt)
    outer = a1111_segments("(" * depth + f"a(b:1.5){closed}" + ")" * depth)
    inner = a1111_segments(f"a(b:1.5){closed}")
    assert pairs(outer) == [(text, round(weight * 1.1**depth, 6)) for text, weight in pairs(inner)]


@pytest.mark.parametrize("name", SYNTAXES)
@given(prompt=st.text(max_size=60))
def test_no_text_is_lost_or_fails(name: str, prompt: str) -> None:
    segments = split_at_breaks(SYNTAXES[name](prompt))
    assert segments
    assert all(math.isfinite(each.weight) for each in segments)
    kept = "".join(each.text for each in segments)
    assert [each for each in prompt if each.isalpha()] == [each for each in kept if each.isalpha()] or "BREAK" in prompt


@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize(
    "prompt",
    ["(" * 20_000, "(a" * 10_000, "([" * 5000 + ")]" * 5000, "(" * 9999 + ")" * 9999, "(a:1" * 5000, ":1" * 9999],
)
def test_long_prompts_are_read_at_once(name: str, prompt: str) -> None:
    begin = time.process_time()
    segments = split_at_breaks(SYNTAXES[name](prompt))
    assert segments
    assert not any(notices(prompt) for notices in (has_break, has_schedule, has_numbers))
    assert time.process_time() - begin < 2


def test_examples() -> None:
    assert pairs(a1111_segments("a (red:1.3) house")) == [("a ", 1), ("red", 1.3), (" house", 1)]
    assert pairs(a1111_segments(r"\(a\) [b] ((c))")) == [("(a) ", 1), ("b", 0.909091), (" ", 1), ("c", 1.21)]
    assert pairs(a1111_segments("a (b:1.2.3) c")) == [("a ", 1), ("b:1.2.3) c", 1.1)]
    assert pairs(comfyui_segments(r"[a] (b (c:1.2)) \(d\)")) == [("[a] ", 1), ("b ", 1.1), ("c", 1.2), (" (d)", 1)]
    assert pairs(comfyui_segments("")) == pairs(a1111_segments("")) == [("", 1)]


def test_breaks() -> None:
    read = split_at_breaks(a1111_segments("a BREAK (b BREAK c:1.5) BREAKER"))
    assert read == (
        *(Segment("a"), Segment("", 1, breaks=True), Segment("b", 1.5), Segment("c", 1.5, breaks=True)),
        Segment(" BREAKER"),
    )


@pytest.mark.parametrize(
    ("prompt", "numbers", "schedule"),
    [
        ("a (red:1.2) house", True, False),
        ("((a:1.2))", True, False),
        ("a (red: blue) house", False, False),
        ("a (red) house, 16:9", False, False),
        ("[cat:dog:0.5]", False, True),
        ("[cat|dog] (a: 1 )", True, True),
        ("[note: red]", False, False),
    ],
)
def test_syntax_that_is_noticed(prompt: str, numbers: bool, schedule: bool) -> None:
    assert (has_numbers(prompt), has_schedule(prompt)) == (numbers, schedule)
