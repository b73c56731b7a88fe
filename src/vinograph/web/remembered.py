"""What the browser remembers of the page: the model, the prompt and the settings.

The browser sends a text that anybody could have put into its storage. So it is read with care, and
what can't be used is dropped without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vinograph import strict_json
from vinograph.web.controls import CUSTOM

_LONGEST = 200_000  # characters of the text
_LONGEST_PROMPT = 20_000
_MOST_VALUES = 200


@dataclass(frozen=True)
class Remembered:
    """The request that a page showed last; ``values`` by the options' names. None where there is none."""

    model: str | None = None
    prompt: str | None = None
    adapters: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def read_remembered(text: str | None) -> Remembered:
    """What a browser remembers; nothing where the text can't be read."""
    try:
        stored = strict_json.parse_object(text or "{}", largest=_LONGEST)
    except strict_json.JsonError:
        return Remembered()
    values = stored.get("values")
    values = dict(values) if isinstance(values, dict) and len(values) <= _MOST_VALUES else {}
    size = _size(*(values.pop(name, None) for name in ("size_choice", "width", "height")))
    return Remembered(
        _text(stored.get("model"), 4096),
        _text(stored.get("prompt"), _LONGEST_PROMPT),
        _text(values.pop("adapters", None), 2000),
        {**values, **({"size": size} if size else {})},
    )


def _text(value: Any, most: int) -> str | None:
    return value if isinstance(value, str) and len(value) <= most else None


def _size(choice: Any, width: Any, height: Any) -> str | None:
    """The size that was chosen; None for that of an init image, which isn't remembered."""
    if choice == CUSTOM and all(isinstance(side, (int, float)) and 0 < side < 1e6 for side in (width, height)):
        return f"{int(width)}x{int(height)}"
    return choice if isinstance(choice, str) and choice[:1].isdecimal() else None
