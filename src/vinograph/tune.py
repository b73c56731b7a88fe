"""Measures which of OpenVINO's settings are the fastest for a model's low-bit weights, on request.

A drawing of few steps shows the inputs of each component. Then each is timed in every setting, and
the fastest one is kept for the drawings that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.components import cache_key, has_low_bit_weights, source_of
from vinograph.errors import RequestError
from vinograph.models.model import Model
from vinograph.pipeline import Pipeline, observe_inputs, stream_given
from vinograph.request import GivenArguments
from vinograph.runtime import tuning
from vinograph.runtime.cache import Cache
from vinograph.runtime.devices import machine
from vinograph.runtime.sessions import Session
from vinograph.runtime.tuning import Setting, Shapes, TuningResult
from vinograph.values import clipped

Inputs = Mapping[str, NDArray[Any]]
Progress = Callable[[str, int, int], None]
"""Called with a component's name, the number of those that are measured, and of all."""

PROMPT = "a red house with a blue door and many stars"
"""A prompt of about 16 tokens: what is measured also serves texts of a quarter and of four times as many."""

_CALL = "generate"


@dataclass(frozen=True)
class TuningRequest:
    """What to measure.

    Attributes:
        arguments: gives the arguments of the model's drawing call.
        precision: what the drawings will be asked for; settings are kept for each by itself.
        components: the names of those to measure; none means all with low-bit weights.
    """

    arguments: Callable[[Pipeline], GivenArguments] = lambda _: GivenArguments({})
    precision: str | Mapping[str, str] = "auto"
    components: Collection[str] = ()


@dataclass(frozen=True)
class ComponentTuning:
    """What was measured of a component for inputs of these shapes. It was kept."""

    component: str
    shapes: Shapes
    result: TuningResult

    @property
    def fastest(self) -> Setting:
        """The setting with the least seconds, be it by no more than chance."""
        return min(self.result.seconds, key=lambda setting: self.result.seconds[setting])


def tune(model: Model, request: TuningRequest, progress: Progress, cache: Cache | None = None) -> list[ComponentTuning]:
    """Measure the settings of a model's components on the CPU, and keep the fastest.

    What was measured before for the same sizes is replaced. Components that the call doesn't use
    are not measured.

    Raises:
        RequestError: an argument is wrong, the model has no low-bit weights, or the cache can't be
            written.
    """
    names = _components(model, request.components)
    kept_in = Cache() if cache is None else cache
    kept_in.check_settings()
    progress("the inputs", 0, len(names))
    seen = _inputs(Pipeline(model, precision=request.precision, memory="low"), names, request)
    calls = [(name, inputs) for name, each in seen.items() for inputs in each]
    found = []
    for number, (name, inputs) in enumerate(calls):
        progress(name, number, len(calls))
        found.append(_measure(model, request, name, inputs, kept_in))
    progress("all", len(calls), len(calls))
    return found


def first_calls(
    pipe: Pipeline, names: Collection[str] | None, given: GivenArguments, output_type: str = "latent"
) -> dict[str, list[Inputs]]:
    """The inputs of components in a drawing of one step per stage, unless ``given`` says more.

    Each component has those of its first call, and of the first of each size that isn't near one
    before. ``names`` are the components; None means all. Without a size, the model's native one is
    drawn. No VAE runs if ``output_type`` is "latent".
    """
    seen: dict[str, list[Inputs]] = {}

    def note(name: str, inputs: Inputs) -> None:
        if names is not None and name not in names:
            return
        before = seen.setdefault(name, [])
        if not any(tuning.are_near(shapes_of(inputs), shapes_of(each)) for each in before):
            before.append({key: np.array(value) for key, value in inputs.items()})

    size = {} if {"width", "height"} & given.values.keys() else native_size(pipe.model)
    values = {**_few_steps(pipe), **size, "prompt": PROMPT, "seed": 0, **given.values}
    with observe_inputs(pipe, note):
        for _ in stream_given(pipe, _CALL, replace(given, values={**values, "output_type": output_type})):
            pass
    return seen


def native_size(model: Model) -> dict[str, int]:
    """The size that the model was trained at, which isn't every family's default."""
    return dict.fromkeys(("width", "height"), int(model.manifest.limits["native_size"]))


def shapes_of(inputs: Inputs) -> Shapes:
    """The shapes of named arrays."""
    return {name: tuple(value.shape) for name, value in inputs.items()}


def _components(model: Model, chosen: Collection[str]) -> list[str]:
    """The ``chosen`` components with low-bit weights, or all.

    Raises:
        RequestError: there are none.
    """
    low_bit = [name for name in model.manifest.components if has_low_bit_weights(model, name)]
    if not low_bit:
        raise RequestError(
            f"{model.manifest.name} has no weights in int8 or int4, and only for these there is something to measure; "
            "make such a bundle: vinograph quantize"
        )
    for name in chosen:
        if name not in low_bit:
            raise RequestError(
                f"component is {clipped(name)}; those of {model.manifest.name} with weights in int8 or int4 are "
                f"{', '.join(low_bit)}"
            )
    return [name for name in low_bit if name in (chosen or low_bit)]


def _inputs(pipe: Pipeline, names: Collection[str], request: TuningRequest) -> dict[str, list[Inputs]]:
    """The inputs of the components in a drawing; its VAE runs only if it is to be measured."""
    given = request.arguments(pipe)
    seen = first_calls(pipe, names, given)
    if seen.keys() < {*names}:
        seen |= first_calls(pipe, {*names} - seen.keys(), given, output_type="np")
    return seen


def _measure(model: Model, request: TuningRequest, name: str, inputs: Inputs, cache: Cache) -> ComponentTuning:
    """Measure one component, and keep what is the fastest."""
    precision = request.precision if isinstance(request.precision, str) else request.precision.get(name, "auto")
    session = Session(source_of(model, name), "CPU", precision)
    result, shapes = session.find_fastest_setting(inputs), shapes_of(inputs)
    session.release()
    tuning.keep_result(cache_key(model, name, cache), shapes, precision, machine(), result)
    return ComponentTuning(name, shapes, result)


def _few_steps(pipe: Pipeline) -> dict[str, int]:
    takes = pipe.calls[_CALL].takes
    options = [argument for option, argument in pipe.options.items() if option.endswith("steps")]
    return {argument: 1 for argument in options if takes.get(argument) is not None}
