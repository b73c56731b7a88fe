"""The check of a model's defaults, against the calls that its family declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vinograph.errors import RequestError
from vinograph.families.contract import Call, Family
from vinograph.request import Request, arguments_of
from vinograph.schema import Named, SchemaError
from vinograph.values import shown


def check_defaults(family: Family, defaults: Mapping[str, Any], limits: Mapping[str, Any]) -> None:
    """Check each default as the argument of a request would be.

    Raises:
        SchemaError: naming a call or an argument that doesn't exist, or a value that no request
            could have.
    """
    for name, values in defaults.items():
        if name not in family.calls:
            raise SchemaError(f"defaults has {shown(name)}; calls of {family.title} are {', '.join(family.calls)}")
        Named(_Anything(), most=len(arguments_of(family.request))).check(f"defaults.{name}", values)
        _check_call(family.calls[name], f"defaults.{name}", values, limits, family.request)


def _check_call(
    call: Call, where: str, values: Mapping[str, Any], limits: Mapping[str, Any], kind: type[Request]
) -> None:
    arguments = arguments_of(kind)
    known = [name for name, own in call.takes.items() if own is not None or arguments[name].recorded]
    compared = call.limits(limits, {**call.takes, **values})
    for name, value in values.items():
        if name not in known:
            raise SchemaError(f"{where} has {shown(name)}; defaults are {', '.join(known)}")
        if value is None:
            raise SchemaError(f"{where}.{name} is null; leave it out")
        try:
            arguments[name].check(name, value, compared)
        except RequestError as error:
            raise SchemaError(f"{where}: {error}") from error


class _Anything:
    """Any value: the check of the argument looks at it."""

    wanted = "a value"

    def check(self, where: str, value: Any) -> None:
        """Accept it."""
