"""Measuring whether a quantized bundle is faster than its source, on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from vinograph import tune
from vinograph.components import cache_key
from vinograph.errors import NumericalError
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import DenoiserSpeed, Speed
from vinograph.pipeline import Pipeline
from vinograph.request import GivenArguments
from vinograph.resources import cpu_count
from vinograph.runtime import tuning
from vinograph.runtime.cache import Cache
from vinograph.runtime.devices import machine, processor
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile
from vinograph.runtime.tuning import TuningResult
from vinograph.tune import Inputs


def first_calls(bundle: Bundle, names: Collection[str] | None = None, output_type: str = "latent") -> dict[str, Inputs]:
    """The inputs of each component's first call, at the bundle's native size.

    ``names`` are the components; None means all. One step of each stage is drawn, and no VAE runs
    if ``output_type`` is "latent".
    """
    calls = tune.first_calls(Pipeline(bundle, memory="low"), names, GivenArguments({}), output_type)
    return {name: each[0] for name, each in calls.items()}


def measure(bundle: Bundle, folder: Path, given: Mapping[str, Inputs]) -> dict[str, tuple[float, TuningResult]]:
    """Seconds of a call of each denoiser in ``bundle``, and the result of tuning the quantized one.

    ``folder`` holds the quantized files, and ``given`` the inputs of the calls.
    """
    found = {}
    for name, inputs in given.items():
        component = bundle.manifest.components[name]
        sources = (IrFile(name, place / component.file, component.f16_safe) for place in (bundle.path, folder))
        source, quantized = (Session(each, "CPU", "auto") for each in sources)
        source_seconds = source.time_call(inputs)
        if source_seconds is None:
            raise NumericalError(name, "auto", f"run `vinograph verify` on {bundle.path}")
        source.release()
        found[name] = (source_seconds, quantized.find_fastest_setting(inputs))
    return found


def speed_record(bundle: Bundle, steps: Mapping[str, str], measured: Mapping[str, tuple[float, TuningResult]]) -> Speed:
    """The manifest's record: seconds in the fastest settings, and a picture's default steps."""
    takes = Pipeline(bundle).calls["generate"].takes
    denoisers = {
        name: DenoiserSpeed(source_seconds, result.seconds[result.setting], int(takes[steps[name]]))
        for name, (source_seconds, result) in measured.items()
    }
    return Speed(processor(), cpu_count(), denoisers)


def remember(bundle: Bundle, given: Mapping[str, Inputs], measured: Mapping[str, tuple[float, TuningResult]]) -> None:
    """Store the fastest settings, so that the first drawing with ``bundle`` uses them."""
    cache = Cache()
    for name, (_, result) in measured.items():
        shapes = tune.shapes_of(given[name])
        tuning.keep_first_result(cache_key(bundle, name, cache), shapes, "auto", machine(), result)
