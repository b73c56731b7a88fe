"""Reading a scheduler's configuration: what isn't computed here is refused by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vinograph.errors import ModelError
from vinograph.schedulers.ddim import DDIMSampler
from vinograph.schedulers.ddpm import DDPMSampler
from vinograph.schedulers.dpmsolver import DPMSolverMultistepSampler
from vinograph.schedulers.edm import EDMDPMSolverMultistepSampler, EDMEulerSampler
from vinograph.schedulers.euler import EulerAncestralSampler, EulerSampler
from vinograph.schedulers.lcm import LCMSampler
from vinograph.schedulers.lms import LMSSampler
from vinograph.schedulers.sampler import MOST_TIMESTEPS, Sampler
from vinograph.schedulers.second_order import (
    DPMSolverSDESampler,
    HeunSampler,
    KDPM2AncestralSampler,
    KDPM2Sampler,
)
from vinograph.schedulers.sigma_spacing import SPACINGS_OF_SIGMAS
from vinograph.schedulers.tcd import TCDSampler
from vinograph.schedulers.unipc import UniPCMultistepSampler
from vinograph.schedulers.vp_sampler import VPSampler
from vinograph.schema import Flag, Kind, Many, Real, SchemaError, Whole
from vinograph.values import shown

SAMPLERS: Mapping[str, type[Sampler]] = {
    each.scheduler_class: each
    for each in (
        EulerAncestralSampler,
        EulerSampler,
        DPMSolverMultistepSampler,
        LCMSampler,
        DDIMSampler,
        DDPMSampler,
        UniPCMultistepSampler,
        DPMSolverSDESampler,
        HeunSampler,
        KDPM2Sampler,
        KDPM2AncestralSampler,
        LMSSampler,
        TCDSampler,
        EDMDPMSolverMultistepSampler,
        EDMEulerSampler,
    )
}
"""The samplers by the names of diffusers' scheduler classes."""

# Other values that diffusers takes for the same thing, in all classes.
_ALIASES: Mapping[str, Mapping[str, str]] = {"prediction_type": {"original_sample": "sample"}}
_KINDS: Mapping[type, Callable[[Any, Any], Kind]] = {
    bool: lambda _least, _most: Flag(),
    int: Whole,
    float: Real,
    tuple: lambda least, most: Many(Real(least, most), 1, MOST_TIMESTEPS),
}
_LEAST_SIGNAL = 1e-20  # a smaller share of the signal's variance would be all rounding


def read_scheduler_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a scheduler: those of ``config``, and diffusers' defaults for the others.

    ``config`` is a scheduler_config.json, whose class stands under "_class_name", or a result of
    this function, whose class stands under "class". Settings that the class doesn't read are left
    out.

    Raises:
        ModelError: a class or a setting that isn't computed here, or a value that makes no sense.
    """
    name = config.get("class", config.get("_class_name"))
    if not isinstance(name, str) or name not in SAMPLERS:
        raise ModelError(
            f"the scheduler {shown(name)} is not one that Vinograph computes; it computes {', '.join(SAMPLERS)}"
        )
    kind = SAMPLERS[name]
    for key, computed in kind.fixed_settings.items():
        if config.get(key) not in (None, computed):
            raise ModelError(
                f"{name} has {key} = {shown(config[key])}, which Vinograph doesn't compute; {computed!r} it does"
            )
    settings: dict[str, Any] = {"class": name}
    unread = () if "class" in config else kind.own_settings
    for each in dataclasses.fields(kind):
        value = None if each.name in unread else config.get(each.name)
        if value is None and each.name in kind.own_settings:
            continue  # so that a manifest holds what a published configuration may
        settings[each.name] = each.default if value is None else _checked(name, each, value)
    _check_together(settings)
    return settings


def make_sampler(config: Mapping[str, Any]) -> Sampler:
    """The sampler with settings that :func:`read_scheduler_config` returned.

    Raises:
        ModelError: as :func:`read_scheduler_config`.
    """
    checked = read_scheduler_config(config)
    return SAMPLERS[checked.pop("class")](**checked)


def _checked(name: str, each: dataclasses.Field[Any], value: Any) -> Any:
    """The value of the setting ``each`` of the class ``name``, in the setting's own type."""
    kind, choices = each.metadata["kind"], each.metadata["choices"]
    where = f"{name} has {each.name}"
    if isinstance(value, str):
        value = {**_ALIASES, **SAMPLERS[name].aliases}.get(each.name, {}).get(value, value)
    # JSON has no such number: null stands for it.
    if kind is float and isinstance(value, float) and value == -math.inf:
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


def _check_together(settings: Mapping[str, Any]) -> None:
    """Refuse settings that don't go together."""
    name = settings["class"]
    own = [key for key in SPACINGS_OF_SIGMAS if settings.get(key)]
    if len(own) > 1:
        raise ModelError(f"{name} has both {' and '.join(own)}; one of them can be computed")
    predicts_noise = issubclass(SAMPLERS[name], VPSampler) and settings["prediction_type"] == "epsilon"
    if predicts_noise and settings["rescale_betas_zero_snr"]:
        raise ModelError(
            f"{name} has rescale_betas_zero_snr with prediction_type epsilon: where all is noise, predicting the noise "
            "says nothing of the picture, and the step divides by zero"
        )
    betas = settings.get("trained_betas")
    if betas is not None and (len(betas) != settings["num_train_timesteps"] or not all(0 < each < 1 for each in betas)):
        raise ModelError(f"{name} has trained_betas that are not num_train_timesteps numbers between 0 and 1")
    if settings.get("original_inference_steps", 1) > settings["num_train_timesteps"]:
        raise ModelError(f"{name} has more original_inference_steps than num_train_timesteps")
    sigma_min, sigma_max = settings.get("sigma_min"), settings.get("sigma_max")
    if sigma_min is not None and sigma_max is not None and sigma_min >= sigma_max:
        raise ModelError(f"{name} has sigma_min = {sigma_min}, which is not below sigma_max")
    if not SAMPLERS[name].preconditioned:
        _check_noise(settings)


def _check_noise(settings: Mapping[str, Any]) -> None:
    """Refuse betas under which a timestep has no noise, or no signal where there should be some."""
    values = {key: value for key, value in settings.items() if key != "class"}
    with np.errstate(all="ignore"):  # what goes wrong is seen in the result
        alphas = SAMPLERS[settings["class"]](**values).alphas_cumprod
    signal = alphas[:-1] if settings["rescale_betas_zero_snr"] else alphas
    if not (np.all(signal >= _LEAST_SIGNAL) and np.all(alphas < 1) and np.all(np.diff(alphas) <= 0)):
        raise ModelError(
            f"{settings['class']} has betas (beta_start, beta_end, beta_schedule, num_train_timesteps or "
            "trained_betas) that make no noise schedule: noise has to grow from a little to no more than all"
        )
