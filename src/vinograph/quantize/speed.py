"""Whether what was quantized is faster than what it was made of, on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.components import cache_key
from vinograph.errors import NumericalError
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import DenoiserSpeed, Speed
from vinograph.pipeline import Pipeline, observe_inputs
from vinograph.quantize.calibration import native_size
from vinograph.resources import cpu_count
from vinograph.runtime import tuning
from vinograph.runtime.cache import Cache
from vinograph.runtime.devices import machine, processor
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile
from vinograph.runtime.tuning import Choice

Inputs = Mapping[str, NDArray[Any]]


def first_calls(bundle: Bundle, names: Collection[str] | None = None, output_type: str = "latent") -> dict[str, Inputs]:
    """What each component (or those of ``names``) is given in its first call, at the bundle's native size.

    One step of each stage is drawn, and no VAE runs for an ``output_type`` of "latent".
    """
    seen: dict[str, Inputs] = {}
    pipe = Pipeline(bundle, memory="low")

    def note(name: str, inputs: Inputs) -> None:
        if name not in seen and (names is None or name in names):
            seen[name] = {key: np.array(value) for key, value in inputs.items()}

    steps = [argument for option, argument in pipe.options.items() if option.endswith("steps")]
    with observe_inputs(pipe, note):
        few: dict[str, Any] = {**native_size(bundle), **dict.fromkeys(steps, 1), "output_type": output_type}
        pipe("a red house on a hill", seed=0, **few)
    return seen


def measure(bundle: Bundle, folder: Path, given: Mapping[str, Inputs]) -> dict[str, tuple[float, Choice]]:
    """Seconds of one call of each denoiser in ``bundle``; and in each setting in ``folder``, its quantized files."""
    found = {}
    for name, inputs in given.items():
        component = bundle.manifest.components[name]
        sources = (IrFile(name, place / component.file, component.f16_safe) for place in (bundle.path, folder))
        source, quantized = (Session(each, "CPU", "auto") for each in sources)
        before = source.seconds(inputs)
        if before is None:
            raise NumericalError(name, "auto", f"run `vinograph verify` on {bundle.path}")
        source.free()
        found[name] = (before, quantized.measure(inputs))
    return found


def told(bundle: Bundle, steps: Mapping[str, str], measured: Mapping[str, tuple[float, Choice]]) -> Speed:
    """The seconds in the fastest settings, with the calls that a picture takes by default."""
    takes = Pipeline(bundle).calls["generate"].takes
    denoisers = {
        name: DenoiserSpeed(before, choice.seconds[choice.setting], int(takes[steps[name]]))
        for name, (before, choice) in measured.items()
    }
    return Speed(processor(), cpu_count(), denoisers)


def remember(bundle: Bundle, given: Mapping[str, Inputs], measured: Mapping[str, tuple[float, Choice]]) -> None:
    """Have drawings with the quantized ``bundle`` use the fastest settings from the first one on."""
    cache = Cache()
    for name, (_, choice) in measured.items():
        shapes = {each: tuple(value.shape) for each, value in given[name].items()}
        tuning.remember(cache_key(bundle, name, cache), shapes, "auto", machine(), choice)
