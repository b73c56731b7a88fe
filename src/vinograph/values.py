"""Shows callers' values in messages and reads them as arrays, whatever their type.

Any method of a caller's object may raise: ``__repr__``, ``__eq__``, ``__array__``. Messages stay
short and on one line, and any exception of a conversion becomes a :class:`RequestError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError, VinographError

MAX_SHOWN = 200  # characters of a value in a message
MAX_VALUES = 1 << 28  # numbers in an array: a gigabyte of them
_MAX_LISTED = 1 << 24  # items of lists in lists
_MAX_NESTED = 8
_NUMBERS = (int, float, np.number, np.bool_)
_MAX_ITEMS = 12
_MAX_DEPTH = 3
_DIGITS_OF_A_BIT = 0.30103  # the logarithm of 2 to the base 10
_MAX_BITS = 256  # of a whole number that is written out
_BRACKETS: dict[type[Any], tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
}


def shown(value: object) -> str:
    """``repr`` of the value on one line, cut to :data:`MAX_SHOWN` characters; never raises."""
    return clipped(_shown(value, 0))


def clipped(text: str) -> str:
    """The text on one line, cut to :data:`MAX_SHOWN` characters, without control characters."""
    head = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
    return "".join(each if each.isprintable() else " " if each.isspace() else "?" for each in head)


def _shown(value: Any, depth: int) -> str:
    try:
        return _repr(value, depth)
    except Exception:  # the caller's object raised, so only its type can be named
        return f"a {type(value).__name__} without a repr"


def _repr(value: Any, depth: int) -> str:
    kind: type[Any] = type(value)
    if kind is int and value.bit_length() > _MAX_BITS:
        return f"a whole number of about {round(value.bit_length() * _DIGITS_OF_A_BIT)} digits"
    if issubclass(kind, (str, bytes, bytearray)):
        return repr(value[:MAX_SHOWN]) if kind in (str, bytes, bytearray) else clipped(repr(value))
    if kind in _BRACKETS:
        first, last = _BRACKETS[kind]
        items = _items((_shown(each, depth + 1) for each in value), len(value), depth)
        single = "," if kind is tuple and len(value) == 1 else ""
        return f"{kind.__name__}()" if not value and first == "{" else f"{first}{items}{single}{last}"
    if kind is dict:
        pairs = (f"{_shown(key, depth + 1)}: {_shown(each, depth + 1)}" for key, each in value.items())
        return f"{{{_items(pairs, len(value), depth)}}}"
    if issubclass(kind, np.ndarray) and value.size > _MAX_ITEMS:
        return f"an array of {value.dtype}, shape {value.shape}"
    return repr(value)


def _items(reprs: Iterable[str], count: int, depth: int) -> str:
    """The first items, with "..." for the others."""
    if depth >= _MAX_DEPTH:
        return "..." if count else ""
    return ", ".join([*islice(reprs, _MAX_ITEMS), *(["..."] if count > _MAX_ITEMS else [])])


def reason(error: BaseException) -> str:
    """Type and message of an exception; never raises."""
    try:
        message = str(error)
    except Exception:  # an exception class of the caller's own
        message = ""
    return clipped(f"{type(error).__name__}: {message}" if message else type(error).__name__)


@contextmanager
def reading(name: str, value: object) -> Iterator[None]:
    """Turn exceptions from reading ``value`` in the block into RequestError.

    Vinograph's own errors and MemoryError pass unchanged: the value is not the cause of a memory
    shortage.
    """
    try:
        yield
    except (VinographError, MemoryError):
        raise
    except Exception as error:
        raise RequestError(f"{name} is {shown(value)}, which can't be read ({reason(error)})") from error


def is_tensor(value: object) -> bool:
    """Whether ``value`` has the methods of a torch tensor; torch is never imported here."""
    return not isinstance(value, np.ndarray) and all(hasattr(value, each) for each in ("detach", "cpu", "numpy"))


def is_array(value: object) -> bool:
    """Whether ``value`` is an array or a tensor of any library."""
    return isinstance(value, np.ndarray) or is_tensor(value) or hasattr(value, "__array__")


def as_array(value: Any) -> NDArray[Any]:
    """Convert an array, a torch tensor, or a nested list of numbers or these to a numpy array.

    A tensor may require gradients, be on another device, or have a type that numpy lacks.

    Raises:
        TypeError: any other value, such as an iterable that numpy would exhaust.
        ValueError: a list is nested too deeply, or holds too many items.
    """
    if is_tensor(value):
        tensor = value.detach().cpu()
        kind = str(tensor.dtype)
        return np.asarray((tensor.float() if "bfloat16" in kind or "float8" in kind else tensor).numpy())
    if isinstance(value, (list, tuple)):
        return _of_list(value)
    if not is_array(value):
        raise TypeError(f"{type(value).__name__} is no array")
    return np.asarray(value)


def _of_list(value: list[Any] | tuple[Any, ...]) -> NDArray[Any]:
    stack, count, has_tensors = [(value, 1)], 0, False
    while stack:
        items, depth = stack.pop()
        count += len(items)
        if depth > _MAX_NESTED or count > _MAX_LISTED:
            raise ValueError(f"lists within lists: over {_MAX_NESTED} of them, or {_MAX_LISTED:,} items")
        for each in items:
            if isinstance(each, (list, tuple)):
                stack.append((each, depth + 1))
            elif not isinstance(each, _NUMBERS):
                if not is_array(each):
                    raise TypeError(f"{type(each).__name__} is no number")
                has_tensors = has_tensors or is_tensor(each)
    return np.stack([as_array(each) for each in value]) if has_tensors else np.asarray(value)
