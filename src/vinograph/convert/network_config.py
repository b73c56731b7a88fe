"""Reading the configuration of a network that has more settings than we compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Config = TypeVar("Config")
Value = TypeVar("Value")


def read_config(
    kind: type[Config], mapping: Mapping[str, Any], fixed: Mapping[str, Any], without_effect: Collection[str]
) -> Config:
    """The dataclass ``kind``, filled from a config.json as diffusers writes it.

    JSON lists become tuples, whatever their depth. Keys that begin with "_" are notes about the file.

    Args:
        kind: the keys that set the network's size, with the values that diffusers takes for absent ones.
        mapping: the file's contents.
        fixed: keys that change what is computed, each with the one value that is computed here.
        without_effect: keys that change nothing when drawing.

    Raises:
        ValueError: naming a key that is unknown or missing, or whose value isn't computed here.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    given = {}
    for key, value in mapping.items():
        if key.startswith("_") or key in without_effect:
            continue
        if key in known:
            given[key] = _tupled(value)
        elif key in fixed:
            expected = fixed[key]
            if value != expected and not (value is None and expected is False):
                raise ValueError(f"{key} is {value!r}; Vinograph computes {expected!r} alone")
        elif value is not None:
            raise ValueError(f"{key} (here {value!r}) is a setting that Vinograph doesn't know")
    for name, field in known.items():
        if name not in given and field.default is MISSING:
            raise ValueError(f"{name} is missing")
    return kind(**given)


def broadcast(name: str, value: Value | tuple[Value, ...], count: int) -> tuple[Value, ...]:
    """One ``value`` for each of ``count``: those given, or the same for all.

    Raises:
        ValueError: another number of values was given.
    """
    if not isinstance(value, tuple):
        return (value,) * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries where {count} are needed")
    return value


def check_unshifted(shift_factor: float | None) -> None:
    """Refuse an autoencoder whose latents have an offset.

    Raises:
        ValueError: they have.
    """
    if shift_factor:
        raise ValueError(f"shift_factor is {shift_factor}; Vinograph computes latents without an offset")


def _tupled(value: Any) -> Any:
    return tuple(_tupled(each) for each in value) if isinstance(value, list) else value
