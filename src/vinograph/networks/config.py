"""Reading a network's config.json: keys that aren't computed here are refused by name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from types import MappingProxyType, NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from vinograph.schema import Divisor, Kind, Real, Whole, is_number, label
from vinograph.values import shown

Config = TypeVar("Config")
Value = TypeVar("Value")

_COUNT = Whole(1, 1_000_000)
_NUMBER = Real(-1e6, 1e6)
_EPSILON = Real(1e-20, 1)
# Ranges of keys that mean the same in every network. Other whole numbers are counts, and at least
# 1.
_RANGES: Mapping[str, Kind] = MappingProxyType(
    {
        "eos_token_id": Whole(0, 1_000_000),
        "num_layers": Whole(0, 512),
        "transformer_layers_per_block": Whole(0, 512),
        "reverse_transformer_layers_per_block": Whole(0, 512),
        "num_encoder_blocks": Whole(0, 512),
        "num_decoder_blocks": Whole(0, 512),
        "norm_eps": _EPSILON,
        "layer_norm_eps": _EPSILON,
        "layer_norm_epsilon": _EPSILON,
        "addition_time_embed_dim": Whole(2, 1_000_000),
        "time_cond_proj_dim": Whole(4, 1_000_000),
        "sample_size": Whole(1, 8192),
        "patch_size": Whole(1, 64),
        "upsampling_scaling_factor": Whole(1, 16),
        "nhead": Whole(-1, 1_000_000),
        "blocks": Whole(0, 512),
        "interpolation_scale": Real(1e-3, 1e3),
    }
)

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}
_DIVISOR = Divisor()


def read_config(
    kind: type[Config], mapping: Mapping[str, Any], fixed: Mapping[str, Any], without_effect: Collection[str]
) -> Config:
    """The dataclass ``kind``, filled from a config.json as diffusers writes it.

    JSON lists become tuples, also within lists. Keys that begin with "_" are notes about the file
    and are skipped.

    Args:
        kind: the keys that matter, with diffusers' values for absent ones as defaults.
        mapping: the content of the file.
        fixed: other keys that change the result, each with the one value that is computed here.
        without_effect: keys that don't change what is drawn.

    Raises:
        ValueError: naming a key that is unknown or missing, or whose value has another type or
            isn't computed here.
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
                raise ValueError(f"{key} is {shown(value)}; Vinograph computes {expected!r} alone")
        elif value is not None:
            raise ValueError(f"{label(key)} (here {shown(value)}) is a setting that Vinograph doesn't know")
    for name, field in known.items():
        if name not in given and field.default is MISSING:
            raise ValueError(f"{name} is missing")
    check_kinds(kind, given)
    return kind(**given)


def check_kinds(kind: type[Any], given: Mapping[str, Any]) -> None:
    """Check that values have the types that the dataclass ``kind`` declares. null counts as false.

    Raises:
        ValueError: naming a key whose value has another type, or is out of range.
    """
    hints = get_type_hints(kind)
    for name, value in given.items():
        if not _is_of(value, hints[name]):
            json_value = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"{name} is {shown(json_value)}, where {_described(hints[name])} should be")
        _check_ranges(name, value, _RANGES.get(name, _NUMBER if float in _leaves(hints[name]) else _COUNT))


def _check_ranges(name: str, value: Any, kind: Kind) -> None:
    """Check the range of each number in a value, which may be a tuple."""
    if isinstance(value, tuple):
        for each in value:
            _check_ranges(name, each, kind)
    elif is_number(value):
        kind.check(name, value)


def _leaves(hint: Any) -> set[Any]:
    """The types of single values that an annotation names."""
    inner = [each for each in get_args(hint) if each is not Ellipsis]
    return {leaf for each in inner for leaf in _leaves(each)} if inner else {hint}


def _is_of(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_of(each, get_args(hint)[0]) for each in value)
    if get_args(hint):  # a union
        return any(_is_of(value, each) for each in get_args(hint))
    if hint is bool:
        return value is None or isinstance(value, bool)
    if hint is float:
        return is_number(value) and math.isfinite(value)
    return isinstance(value, hint) and not isinstance(value, bool)


def _described(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"a list (each {_described(get_args(hint)[0])})"
    if get_args(hint):
        return " or ".join(_described(each) for each in get_args(hint))
    return _KINDS[hint]


def broadcast(name: str, value: Value | tuple[Value, ...], count: int) -> tuple[Value, ...]:
    """``count`` values: those of a tuple, or one ``value`` for all.

    Raises:
        ValueError: the tuple has another length.
    """
    if not isinstance(value, tuple):
        return (value,) * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries where {count} are needed")
    return value


def check_unshifted(shift_factor: float | None) -> None:
    """Refuse an autoencoder whose latents are shifted.

    Raises:
        ValueError: ``shift_factor`` is not 0 or None.
    """
    if shift_factor:
        raise ValueError(f"shift_factor is {shift_factor}; Vinograph computes latents without an offset")


def check_divisors(**values: Any) -> None:
    """Refuse numbers that latents can't be divided by in f32, such as zero.

    Raises:
        ValueError: naming the key of the number.
    """
    for name, value in values.items():
        if not _DIVISOR.least <= abs(value) <= _DIVISOR.most:
            raise ValueError(f"{name} is {value!r}, by which latents can't be divided")


def _tupled(value: Any) -> Any:
    return tuple(_tupled(each) for each in value) if isinstance(value, list) else value


def parse_config(kind: type[Config], mapping: Mapping[str, Any]) -> Config:
    """The dataclass ``kind``, filled from a config.json as diffusers writes it.

    Keys that begin with "_" (``_class_name``, ``_diffusers_version``) are notes about the file and
    are skipped. JSON lists become tuples. Absent keys take diffusers' values. Unlike
    :func:`read_config`, no other keys are allowed.

    Raises:
        ValueError: naming the keys that are unknown and those that are known, or a value of another
            type.
    """
    given = {key: value for key, value in mapping.items() if not key.startswith("_")}
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise ValueError(
            f"{kind.__name__}: unknown configuration keys {', '.join(unknown)}; known are {', '.join(known)}"
        )
    return read_config(kind, given, {}, ())


def with_square_size(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with one number as ``sample_size``, also where it has a height and a width.

    diffusers' pipelines multiply it by the VAE's scale factor, so they would take no pair either.

    Raises:
        ValueError: the height and the width differ.
    """
    size = mapping.get("sample_size")
    if not isinstance(size, list) or len(size) != 2:
        return mapping
    if size[0] != size[1]:
        raise ValueError(f"sample_size is {shown(size)}; Vinograph draws with models of square pictures")
    return {**mapping, "sample_size": size[0]}


def require(condition: bool, message: str) -> None:
    """Raise ValueError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)
