"""A scheduler's configuration, checked: what we compute is taken, anything else is refused by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from vinograph.errors import ModelError
from vinograph.schedulers.alphas import DDIMScheduler, LCMScheduler, OverAlpha
from vinograph.schedulers.dpmsolver import DPMSolverMultistepScheduler
from vinograph.schedulers.euler import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler
from vinograph.schedulers.sampler import Sampler

SAMPLERS: Mapping[str, type[Sampler]] = {
    each.__name__: each
    for each in (
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        DPMSolverMultistepScheduler,
        LCMScheduler,
        DDIMScheduler,
    )
}

# Names under which diffusers takes the same thing.
_ALIASES: Mapping[str, Mapping[str, str]] = {
    "solver_type": {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
    "algorithm_type": {"deis": "dpmsolver++"},
    "prediction_type": {"original_sample": "sample"},
}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a name", tuple: "a list of numbers"}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the scheduler that ``config`` describes, with diffusers' defaults where it is silent.

    ``config`` is a scheduler_config.json (its class under "_class_name"), or what this function returned (its class
    under "class"). Settings that the class doesn't read are left out.

    Raises:
        ModelError: a class that we don't have, a setting that we don't compute, or a value that makes no sense.
    """
    name = config.get("class", config.get("_class_name"))
    if name not in SAMPLERS:
        raise ModelError(
            f"the scheduler {name!r} is not one that Vinograph computes; it computes {', '.join(SAMPLERS)}"
        )
    kind = SAMPLERS[name]
    for key, computed in kind.computed.items():
        if config.get(key) not in (None, computed):
            raise ModelError(
                f"{name} has {key} = {config[key]!r}, which Vinograph doesn't compute; {computed!r} it does"
            )
    told: dict[str, Any] = {"class": name}
    for each in dataclasses.fields(kind):
        value = config.get(each.name)
        told[each.name] = each.default if value is None else _checked(name, each, value)
    _check_together(told)
    return told


def sampler(told: Mapping[str, Any]) -> Sampler:
    """The sampler with the settings that :func:`settings` returned, perhaps by way of a manifest.

    Raises:
        ModelError: as :func:`settings`.
    """
    checked = settings(told)
    return SAMPLERS[checked.pop("class")](**checked)


def _checked(name: str, each: dataclasses.Field[Any], value: Any) -> Any:
    kind, choices, least = (each.metadata[key] for key in ("kind", "choices", "least"))
    if isinstance(value, str):
        value = _ALIASES.get(each.name, {}).get(value, value)
    if kind is tuple and isinstance(value, (list, tuple)):
        return tuple(_number(name, each.name, number) for number in value)
    if kind is float:
        if value == -math.inf:  # JSON has no such number: None stands for it
            return None
        value = _number(name, each.name, value)
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise ModelError(f"{name} has {each.name} = {value!r}, where {_KINDS[kind]} should be")
    if choices and value not in choices:
        have = ", ".join(str(choice) for choice in choices)
        raise ModelError(f"{name} has {each.name} = {value!r}, which Vinograph doesn't compute; it computes {have}")
    if least is not None and value < least:
        raise ModelError(f"{name} has {each.name} = {value!r}, which is below {least}")
    return value


def _number(name: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ModelError(f"{name} has {key} = {value!r}, where a number should be")
    return float(value)


def _check_together(told: Mapping[str, Any]) -> None:
    name = told["class"]
    own = [key for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas") if told.get(key)]
    if len(own) > 1:
        raise ModelError(f"{name} has both {' and '.join(own)}; one of them can be computed")
    by_alpha = issubclass(SAMPLERS[name], OverAlpha)
    if by_alpha and told["rescale_betas_zero_snr"] and told["prediction_type"] == "epsilon":
        raise ModelError(
            f"{name} has rescale_betas_zero_snr with prediction_type epsilon: where all is noise, predicting the noise "
            "says nothing of the picture, and the step divides by zero"
        )
    betas = told["trained_betas"]
    if betas is not None and (len(betas) != told["num_train_timesteps"] or not all(0 < each < 1 for each in betas)):
        raise ModelError(f"{name} has trained_betas that are not num_train_timesteps numbers between 0 and 1")
    if told.get("original_inference_steps", 1) > told["num_train_timesteps"]:
        raise ModelError(f"{name} has more original_inference_steps than num_train_timesteps")
