"""Reading a published config.json into a frozen dataclass."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Config = TypeVar("Config")


def parse_config(kind: type[Config], mapping: Mapping[str, Any]) -> Config:
    """The dataclass `kind`, filled from a config.json as diffusers writes it.

    Keys that begin with "_" (`_class_name`, `_diffusers_version`) are notes about the file and are skipped.
    JSON lists become tuples. A key that is absent takes the value that diffusers takes for it.

    Raises:
        ValueError: naming the keys that `kind` doesn't have, and those it has.
    """
    given = {key: value for key, value in mapping.items() if not key.startswith("_")}
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise ValueError(
            f"{kind.__name__}: unknown configuration keys {', '.join(unknown)}; known are {', '.join(known)}"
        )
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})


def require(condition: bool, message: str) -> None:
    """Raises ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)
