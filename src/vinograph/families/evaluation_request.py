"""The arguments by which a call evaluates its denoiser less often, for the families that share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vinograph.arguments import Limits, check, check_amount, choice_check, whole_number_check
from vinograph.errors import RequestError
from vinograph.request import Request, argument_field
from vinograph.values import shown

GUIDANCE_INTERVAL: Mapping[str, Any] = MappingProxyType({"guidance_interval": None})
"""The argument of guidance in a part of the steps, with its default."""
EXTRAPOLATION: Mapping[str, Any] = MappingProxyType({"extrapolation_interval": None, "extrapolation_order": 1})
"""The arguments of extrapolated steps, with their defaults."""
SPEED: Mapping[str, Any] = MappingProxyType({"speed": None})
"""The argument of named combinations, with its default."""
EVALUATION_OPTIONS: Mapping[str, str] = MappingProxyType(
    {name: name for name in (*SPEED, *GUIDANCE_INTERVAL, *EXTRAPOLATION)}
)
"""The options of the command line, with the argument that each sets."""

SPEEDS = ("balanced", "fast")
_LONGEST_NUMBER = 30  # characters of a typed one


@check("tuple[float, float]", "list[float]", "str")
def check_interval(name: str, value: Any, _: Limits) -> tuple[float, float]:
    """Check a part of the steps: where it starts and where it ends, as fractions from 0 to 1."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise _no_interval(name, value)
    try:
        start, end = (check_amount(name, _typed_number(each)) for each in given)
    except RequestError as error:
        raise _no_interval(name, value) from error
    if start >= end:
        raise _no_interval(name, value)
    return start, end


def _no_interval(name: str, value: Any) -> RequestError:
    return RequestError(
        f"{name} is {shown(value)}; give two fractions of the steps from 0 to 1, a start and a later end, such as "
        "0.2,0.8"
    )


def _typed_number(value: Any) -> Any:
    """The number that a text says; anything else as it is."""
    if not isinstance(value, str) or len(value) > _LONGEST_NUMBER:
        return value
    try:
        return float(value)
    except ValueError:
        return value


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(Request):
    """A request that may evaluate the denoiser less often. All of it is off by default.

    ``guidance_interval`` is after Kynkäänniemi et al., "Applying Guidance in a Limited Interval
    Improves Sample and Distribution Quality in Diffusion Models", arXiv 2404.07724. The others are
    after TaylorSeer: Liu et al., "From Reusing to Forecasting", arXiv 2503.06923.
    """

    speed: str | None = argument_field(
        choice_check(SPEEDS),
        "a named combination of the arguments that save evaluations, for what is left open; vinograph inspect shows "
        "what it stands for",
        metavar="|".join(SPEEDS),
        on_page=False,
    )
    guidance_interval: tuple[float, float] | None = argument_field(
        check_interval,
        "the part of the steps that is guided (arXiv 2404.07724), as fractions of all steps: a start and an end; the "
        "others evaluate the model without guidance, at half the cost",
        metavar="START,END",
        on_page=False,
    )
    extrapolation_interval: int | None = argument_field(
        whole_number_check(1, 100),
        "evaluate the model in every so-many-th step and extrapolate its output between (after TaylorSeer, arXiv "
        "2503.06923); 1 evaluates it in every step",
        on_page=False,
    )
    extrapolation_order: int | None = argument_field(
        whole_number_check(1, 2),
        "the order of that extrapolation: 1 (linear) or 2 (quadratic)",
        needs=("extrapolation_interval",),
        on_page=False,
    )
