"""A scheduler's configuration, checked: what we compute is taken, anything else is refused by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vinograph.errors import ModelError
from vinograph.schedulers.alphas import DDIMScheduler, LCMScheduler, OverAlpha
from vinograph.schedulers.dpmsolver import DPMSolverMultistepScheduler
from vinograph.schedulers.euler import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler
from vinograph.schedulers.sampler import MOST_TIMESTEPS, Sampler
from vinograph.schema import Flag, Kind, Many, Real, SchemaError, Whole
from vinograph.values import shown

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
_KINDS: Mapping[type, Callable[[Any, Any], Kind]] = {
    bool: lambda _least, _most: Flag(),
    int: Whole,
    float: Real,
    tuple: lambda least, most: Many(Real(least, most), 1, MOST_TIMESTEPS),
}
_LEAST_SIGNAL = 1e-20  # of the signal's variance: what is less would be all rounding


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the scheduler that ``config`` describes, with diffusers' defaults where it is silent.

    ``config`` is a scheduler_config.json (its class under "_class_name"), or what this function returned (its class
    under "class"). Settings that the class doesn't read are left out.

    Raises:
        ModelError: a class that we don't have, a setting that we don't compute, or a value that makes no sense.
    """
    name = config.get("class", config.get("_class_name"))
    if not isinstance(name, str) or name not in SAMPLERS:
        raise ModelError(
            f"the scheduler {shown(name)} is not one that Vinograph computes; it computes {', '.join(SAMPLERS)}"
        )
    kind = SAMPLERS[name]
    for key, computed in kind.computed.items():
        if config.get(key) not in (None, computed):
            raise ModelError(
                f"{name} has {key} = {shown(config[key])}, which Vinograph doesn't compute; {computed!r} it does"
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
    kind, choices = each.metadata["kind"], each.metadata["choices"]
    where = f"{name} has {each.name}"
    if isinstance(value, str):
        value = _ALIASES.get(each.name, {}).get(value, value)
    if kind is float and isinstance(value, float) and value == -math.inf:  # JSON has no such number: null stands for it
        return None
    if choices:
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool) or value not in choices:
            have = ", ".join(str(choice) for choice in choices)
            raise ModelError(f"{where} = {shown(value)}, which Vinograph doesn't compute; it computes {have}")
        return value
    try:
        _KINDS[kind](each.metadata["least"], each.metadata["most"]).check("it", value)
    except SchemaError as error:
        raise ModelError(f"{where} = {str(error).removeprefix('it is ')}") from error
    return tuple(map(float, value)) if kind is tuple else kind(value)


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
    if None not in (told.get("sigma_min"), told.get("sigma_max")) and told["sigma_min"] >= told["sigma_max"]:
        raise ModelError(f"{name} has sigma_min = {told['sigma_min']}, which is not below sigma_max")
    _check_noise(told)


def _check_noise(told: Mapping[str, Any]) -> None:
    """Refuse betas under which some timestep has no noise, or no signal where there should be some."""
    values = {key: value for key, value in told.items() if key != "class"}
    with np.errstate(all="ignore"):  # what goes wrong is seen in the result
        alphas = SAMPLERS[told["class"]](**values).alphas_cumprod
    signal = alphas[:-1] if told["rescale_betas_zero_snr"] else alphas
    if not (np.all(signal >= _LEAST_SIGNAL) and np.all(alphas < 1) and np.all(np.diff(alphas) <= 0)):
        raise ModelError(
            f"{told['class']} has betas (beta_start, beta_end, beta_schedule, num_train_timesteps or trained_betas) "
            "that make no noise schedule: noise has to grow from a little to no more than all"
        )
