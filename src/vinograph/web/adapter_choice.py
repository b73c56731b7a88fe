"""The page's field for adapters: names of files in the folder of adapters, with their weights."""

from __future__ import annotations

from vinograph.adapters.file import folder, installed, parse_weight
from vinograph.errors import RequestError

_LONGEST = 2000


def offered() -> list[str]:
    """The names of the adapters that visitors may use."""
    return [file.stem for file in installed()]


def chosen(text: str | None) -> dict[str, float]:
    """The adapters that a visitor typed, ``NAME:WEIGHT`` between commas.

    Paths aren't taken: a visitor names only what the folder of adapters has.

    Raises:
        RequestError: a name is none of those.
    """
    if text and len(text) > _LONGEST:
        raise RequestError(f"Adapters has {len(text)} characters; give at most {_LONGEST}")
    pairs = [parse_weight(part.strip()) for part in (text or "").split(",") if part.strip()]
    known = offered()
    for name, _ in pairs:
        if name not in known:
            raise RequestError(
                f"there is no adapter {name[:100]!r} in {folder()}; there is {', '.join(known) or 'none'}"
            )
    return dict(pairs)
