"""The check of the borders that outpainting adds around a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from vinograph.arguments import Limits, check
from vinograph.errors import RequestError
from vinograph.values import shown

_LONGEST_NUMBER = 9  # digits of a typed one


@check("tuple[int, int, int, int]", "list[int]", "int", "str")
def check_borders(name: str, value: Any, limits: Limits) -> tuple[int, int, int, int]:
    """Check the widths of the four borders around a picture; one number is for all of them."""
    given = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    widths, most = [_typed_number(each) for each in given[:5]], limits.maximum_size
    if len(widths) not in (1, 4) or not all(_is_whole(each, most) for each in widths) or not any(widths):
        raise RequestError(
            f"{name} is {shown(value)}; give pixels for left, top, right and bottom, such as 64,0,64,0, or one number "
            f"for all sides, each from 0 to {most} and not all of them 0"
        )
    left, top, right, bottom = (int(each) for each in widths * (4 // len(widths)))
    borders, step = (left, top, right, bottom), limits.size_multiple
    if any(each % step for each in borders):
        nearest = ",".join(str(-(-each // step) * step) for each in borders)
        raise RequestError(f"{name} is {shown(value)}; this model draws multiples of {step}, the nearest: {nearest}")
    return borders


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(0 <= value <= most)


def _typed_number(value: Any) -> Any:
    """The whole number that a text says; anything else as it is."""
    typed = value.strip() if isinstance(value, str) else ""
    return int(typed) if typed.isdecimal() and len(typed) <= _LONGEST_NUMBER else value
