"""How messages show values, and how errors of a value's own methods are reported."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from vinograph import ModelError, RequestError
from vinograph.values import MAX_SHOWN, as_array, clipped, is_tensor, reading, reason, shown


class Broken:
    """A value whose every method raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Endless:
    def __repr__(self) -> str:
        return "two\nlines\x1b[31m" * 1_000_000


class SilentError(Exception):
    def __str__(self) -> str:
        raise ValueError


class TestShown:
    @pytest.mark.parametrize(
        "value",
        [None, 5, -3.5, "it's", b"x", [1, "a"], (1,), (), [], {}, {1: 2}, {1}, set(), frozenset({2}), frozenset()],
    )
    def test_a_short_value_is_shown_as_its_repr(self, value: Any) -> None:
        assert shown(value) == (repr(value) if not isinstance(value, frozenset) or not value else "{2}")

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (10**5000, "a whole number of about 5000 digits"),
            ([-(10**5000)], "[a whole number of about 5000 digits]"),
            (Broken(), "a Broken without a repr"),
            ([Broken(), 1], "[a Broken without a repr, 1]"),
            (np.zeros((3, 40)), "an array of float64, shape (3, 40)"),
            (list(range(100)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...]"),
            ([[[[[1]]]]], "[[[[...]]]]"),
            ({key: [1] for key in range(3)}, "{0: [1], 1: [1], 2: [1]}"),
        ],
        ids=lambda each: each if isinstance(each, str) else "",
    )
    def test_other_values_are_described(self, value: Any, text: str) -> None:
        assert shown(value) == text

    def test_any_value_is_shown_on_one_short_line(self) -> None:
        ring: list[Any] = []
        ring.append(ring)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        values = ("x" * 10**7, b"\n" * 10**7, Endless(), [["y" * 1000] * 1000] * 1000, ring, deep, "\x1b[31m\n")
        for text in map(shown, values):
            assert len(text) <= MAX_SHOWN
            assert text.isprintable()
        while deep:  # would recurse if it were iterated
            deep = deep.pop()

    def test_an_endless_iterable_is_not_iterated(self) -> None:
        forever = itertools.count()
        assert shown(forever) == "count(0)"
        assert next(forever) == 0

    def test_long_text_is_clipped(self) -> None:
        assert clipped("a\tb\x07") == "a b?"
        assert clipped("a" * 500) == "a" * (MAX_SHOWN - 1) + "…"

    def test_an_errors_reason_is_one_short_line(self) -> None:
        assert reason(ValueError("why\nso")) == "ValueError: why so"
        assert reason(SilentError()) == reason(type("SilentError", (Exception,), {})()) == "SilentError"


class TestReading:
    def test_an_error_of_a_values_own_method_becomes_ours(self) -> None:
        with pytest.raises(RequestError) as caught, reading("seed", 5):
            raise ZeroDivisionError("by 0")
        assert str(caught.value) == "seed is 5, which can't be read (ZeroDivisionError: by 0)"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize("error", [ModelError("ours"), MemoryError(), KeyboardInterrupt()])
    def test_our_errors_and_interruptions_pass(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught, reading("seed", 5):
            raise error
        assert caught.value is error


class TestArrays:
    @pytest.mark.parametrize(
        "value",
        [
            [[1, 2]],
            np.array([[1, 2]], np.int8),
            torch.tensor([[1.0, 2.0]], requires_grad=True),
            torch.tensor([[1.0, 2.0]]).bfloat16(),
            torch.tensor([[1.0, 2.0]]).half(),
            torch.nn.Parameter(torch.tensor([[1.0, 2.0]])),
            [torch.tensor([1.0, 2.0], requires_grad=True)],
            [torch.tensor([1.0, 2.0]).bfloat16()],
        ],
    )
    def test_anything_that_gives_an_array_is_read(self, value: Any) -> None:
        assert as_array(value).tolist() == [[1, 2]]

    def test_tensors_are_recognised_by_their_methods(self) -> None:
        assert is_tensor(torch.zeros(1))
        assert not any(map(is_tensor, (np.zeros(1), [1], None, "cpu", torch)))
