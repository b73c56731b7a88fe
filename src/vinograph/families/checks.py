"""The checks of what a model says of itself, against what its family declares."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vinograph.errors import ModelError, RequestError
from vinograph.families.contract import Call, Family
from vinograph.request import Request, arguments_of
from vinograph.schema import Divisor, Kind, Many, Named, Real, Record, SchemaError, Whole
from vinograph.values import shown

_SIDE = Whole(1, 65_536)
LIMITS: Mapping[str, Kind] = MappingProxyType(
    {"size_multiple": Whole(1, 4096), "minimum_size": _SIDE, "maximum_size": _SIDE, "native_size": _SIDE}
)
"""Pixels: a side is a multiple of the first, from the second to the third; the fourth is what it was trained on."""

AUTOENCODERS: Mapping[str, Kind] = MappingProxyType(
    {
        "latent_channels": Whole(1, 64),
        "vae_scale_factor": Whole(1, 256),
        "vae_scaling_factor": Divisor(),
        "vae_latents_mean": Many(Real(-1e6, 1e6)),
        "vae_latents_std": Many(Divisor()),
        "tiny_vae_scaling_factor": Divisor(),
    }
)
"""What families that denoise a VAE's latents have to know of it."""


def check_model(
    family: Family,
    config: Mapping[str, Any],
    limits: Mapping[str, Any],
    defaults: Mapping[str, Any],
    scheduler: Mapping[str, Any],
) -> None:
    """Check all that depends on the family.

    Raises:
        SchemaError: naming a value that is missing, of another kind, out of range, or does not fit another one.
        ModelError: the scheduler is one that Vinograph doesn't compute.
    """
    Record(family.config, open=True).check("config", config)
    family.check_config(config)
    check_limits(limits)
    check_defaults(family, defaults, limits)
    family.check_scheduler(scheduler)


def check_limits(limits: Mapping[str, Any]) -> None:
    """Check the sizes that a model draws.

    Raises:
        SchemaError: naming one that makes no sense.
    """
    Record(LIMITS, open=True).check("limits", limits)
    multiple, least, most = (limits[name] for name in ("size_multiple", "minimum_size", "maximum_size"))
    if least > most:
        raise SchemaError(f"limits.minimum_size is {least}, which is above maximum_size {most}")
    for name in ("minimum_size", "maximum_size"):
        if limits[name] % multiple:
            raise SchemaError(f"limits.{name} is {limits[name]}, which is no multiple of size_multiple {multiple}")


def check_defaults(family: Family, defaults: Mapping[str, Any], limits: Mapping[str, Any]) -> None:
    """Check each default as the argument of a request would be.

    Raises:
        SchemaError: naming a call or an argument that there is not, or a value that a request could not have.
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
    """A value that another check looks at."""

    wanted = "a value"

    def check(self, where: str, value: Any) -> None:
        """Take it."""


def check_sampler(scheduler: Mapping[str, Any]) -> None:
    """Check the scheduler of a family that samples with one of :mod:`vinograph.schedulers`.

    Raises:
        SchemaError: a setting of it makes no sense.
        ModelError: its class is not computed.
    """
    from vinograph.schedulers import SAMPLERS, settings

    name = scheduler.get("class")
    if not isinstance(name, str):
        raise SchemaError(f"scheduler.class is {shown(name)}, where one of {', '.join(SAMPLERS)} should be")
    if name not in SAMPLERS:
        settings(scheduler)  # which names those that there are
    try:
        settings(scheduler)
    except ModelError as error:
        raise SchemaError(f"scheduler: {error}") from error


def check_vaes(config: Mapping[str, Any]) -> None:
    """Compare the numbers of the autoencoders with each other.

    Raises:
        SchemaError: naming two that do not fit.
    """
    channels, mean, deviation = (config[name] for name in ("latent_channels", "vae_latents_mean", "vae_latents_std"))
    if len(mean) != len(deviation) or len(mean) not in (0, channels):
        raise SchemaError(
            f"config.vae_latents_mean has {len(mean)} numbers and vae_latents_std {len(deviation)} "
            f"for {channels} channels; give as many, or none"
        )
