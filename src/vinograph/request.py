"""Requests: what a caller gave, checked and completed with a call's defaults."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from vinograph.arguments import MAX_COUNT, MAX_STEPS, OUTPUT_TYPES, Limits
from vinograph.errors import RequestError
from vinograph.noise import random_seed
from vinograph.request_fields import STRENGTHS, Argument, Array, Request, argument_field, arguments_of
from vinograph.values import clipped

__all__ = [
    "OPTIONS",
    "STRENGTHS",
    "Argument",
    "Array",
    "GivenArguments",
    "Request",
    "Signature",
    "argument_field",
    "arguments_of",
    "fewest_steps",
    "resolve",
]

_NO_NAMES: Mapping[str, str] = MappingProxyType({})

OPTIONS: Mapping[str, str] = {
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "count": "num_images_per_prompt",
    "image": "image",
    "strength": "strength",
}
"""The argument that each command-line option sets, for options with one meaning in all families.

Each family adds options of its own.
"""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Arguments of a call, with their defaults and limits.

    ``takes`` maps each argument to its default. ``positional`` lists the arguments that may be
    passed by position, in order. ``conditional_defaults`` maps an argument to the defaults that
    change when it is given. ``presets`` maps an argument to what each of its values stands for:
    arguments that the caller leaves open. ``steps`` names the argument for the number of steps, of which
    image-to-image runs a share. ``choices`` are values of a text argument that a page offers, though
    others fit. ``any_size_with`` names a switch that allows any size in pixels.
    The other fields are as in :class:`vinograph.arguments.Limits`.
    """

    takes: Mapping[str, Any]
    positional: tuple[str, ...]
    conditional_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    steps: str | None = None
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    any_size_with: str | None = None
    custom_timesteps: str = Limits.custom_timesteps
    named_timesteps: tuple[str, ...] = ()
    output_types: tuple[str, ...] = OUTPUT_TYPES
    callback_tensors: tuple[str, ...] = Limits.callback_tensors

    def limits(self, model: Mapping[str, Any], values: Mapping[str, Any]) -> Limits:
        """Limits for checking these ``values``, with the ``model``'s size limits."""
        resized = self.any_size_with is not None and values.get(self.any_size_with) is True
        return Limits(
            size_multiple=1 if resized else model["size_multiple"],
            minimum_size=model["minimum_size"],
            maximum_size=model["maximum_size"],
            custom_timesteps=self.custom_timesteps,
            named_timesteps=self.named_timesteps,
            output_types=self.output_types,
            callback_tensors=self.callback_tensors,
        )


@dataclass(frozen=True)
class GivenArguments:
    """Arguments as the caller passed them.

    ``names`` maps arguments to the caller's names for them, such as an option's, for errors.
    """

    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)


def resolve(
    given: Mapping[str, Any],
    signature: Signature,
    model: Mapping[str, Any],
    title: str,
    kind: type[Request] = Request,
    names: Mapping[str, str] = _NO_NAMES,
) -> Request:
    """Check the arguments ``given`` to a call, and complete them with the call's defaults.

    ``model`` holds the model's size limits. ``title`` names the call in errors. ``names`` maps
    arguments to the caller's names for them, such as an option's. ``kind`` is the family's request
    class.

    Raises:
        RequestError: an argument is unknown or doesn't fit. The message names the argument, its
            value and what would fit.
    """
    for name in given:
        if name not in signature.takes:
            raise RequestError(_not_taken(names.get(name, name), signature.takes, title))
    explicit = {name: value for name, value in given.items() if value is not None}
    explicit = _with_presets(explicit, signature, arguments_of(kind), names)
    defaults = _applicable_defaults(signature, explicit, kind)
    values = {**explicit, **{name: value for name, value in defaults.items() if name not in explicit}}
    limits, arguments = signature.limits(model, values), arguments_of(kind)
    request = kind(
        **{
            name: arguments[name].check(names.get(name, name), value, limits)
            for name, value in values.items()
            if value is not None
        }
    )
    request = _with_enough_steps(request, signature, explicit)
    _check_together(request, signature.takes, names)
    if "seed" in signature.takes and request.seed is None and request.generator is None:
        request = dataclasses.replace(request, seed=random_seed())
    return _spread_texts(request)


def _with_presets(
    explicit: Mapping[str, Any], signature: Signature, arguments: Mapping[str, Argument], names: Mapping[str, str]
) -> dict[str, Any]:
    """The ``explicit`` arguments, with those that stand behind a preset in its place.

    So the request, and a picture's metadata, say what was really used.
    """
    found = dict(explicit)
    for name, presets in signature.presets.items():
        if name in found:
            value = arguments[name].check(names.get(name, name), found.pop(name))
            found = {**presets[value], **found}
    return found


def fewest_steps(share: float) -> int | None:
    """Smallest number of steps whose ``share`` is at least 1; None if it exceeds the maximum."""
    first = math.floor(1 / share) if share > 1 / (MAX_STEPS + 1) else MAX_STEPS + 1
    return next((steps for steps in range(first, MAX_STEPS + 1) if int(steps * share) >= 1), None)


def _with_enough_steps(request: Request, signature: Signature, explicit: Mapping[str, Any]) -> Request:
    """The request with its default step count raised until its share is at least one step."""
    arguments, share = arguments_of(type(request)), request.step_share
    if signature.steps is None or signature.steps in explicit or any(arguments[name].sets_steps for name in explicit):
        return request
    fewest = fewest_steps(share) if share is not None and share > 0 else None
    if fewest is None or fewest <= getattr(request, signature.steps):
        return request
    # Default timesteps are fewer, or they would do.
    changed: dict[str, Any] = {
        signature.steps: fewest,
        **{name: None for name in arguments if arguments[name].sets_steps},
    }
    return dataclasses.replace(request, **changed)


def _applicable_defaults(signature: Signature, explicit: Mapping[str, Any], kind: type[Request]) -> dict[str, Any]:
    """Defaults that apply when the ``explicit`` arguments are given.

    With ``image``, height and width have no default; without it, ``strength`` has none.
    """
    takes, arguments = signature.takes, arguments_of(kind)
    replaced = {
        other
        for name, value in explicit.items()
        if not _is_default(value, takes[name])
        for other in arguments[name].replaces
    }
    replaced |= {
        name for name in takes if arguments[name].sets_steps and _is_for_others(takes[name], signature, explicit)
    }
    changed = {name: value for each in explicit for name, value in signature.conditional_defaults.get(each, {}).items()}
    return {
        name: value
        for name, value in {**takes, **changed}.items()
        if name not in replaced and all(needed in explicit for needed in arguments[name].needs if needed in takes)
    }


def _is_default(value: Any, default: Any) -> bool:
    """Whether a text that was given is the default anyway, so that it replaces nothing."""
    return type(value) is str and value == default  # not checked yet: other objects may raise anything


def _is_for_others(default: Any, signature: Signature, explicit: Mapping[str, Any]) -> bool:
    """Whether default timesteps are for another number of steps than was given."""
    steps = explicit.get(signature.steps or "")
    whole = issubclass(type(steps), (int, np.integer))  # not checked yet
    return whole and isinstance(default, (list, tuple)) and len(default) != steps


def _not_taken(name: str, takes: Mapping[str, Any], title: str) -> str:
    close = difflib.get_close_matches(clipped(name), takes, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{title} takes no {clipped(name)}{hint}; it takes {', '.join(sorted(takes))}"


def _check_together(request: Request, takes: Mapping[str, Any], names: Mapping[str, str]) -> None:
    if "prompt" in takes and "prompt_embeds" in takes and request.prompt is None and request.prompt_embeds is None:
        raise RequestError("give a prompt (an empty one is fine), or prompt_embeds")
    if "image" in takes and "prompt" not in takes and request.image is None:
        raise RequestError("give an image: a path, a PIL picture or an array")
    texts, states = request.prompt, request.prompt_embeds
    if texts is not None and states is not None and len(texts) != len(states):
        raise RequestError(f"prompt has {len(texts)} texts and prompt_embeds has {len(states)}; give as many")
    if request.image_count > MAX_COUNT:
        raise RequestError(f"that is {request.image_count:,} pictures; one call draws at most {MAX_COUNT:,}")
    if request.seed is not None and request.generator is not None:
        raise RequestError("give seed or generator, not both")
    if isinstance(request.generator, (list, tuple)) and len(request.generator) not in (1, request.image_count):
        raise RequestError(
            f"generator has {len(request.generator)} generators for {request.image_count} pictures; give one for each"
        )
    arguments = arguments_of(type(request))
    for name, argument in arguments.items():
        for needed in argument.needs:
            if needed in takes and getattr(request, name) is not None and getattr(request, needed) is None:
                about = arguments[needed].about
                raise RequestError(f"{names.get(name, name)} needs {names.get(needed, needed)}: {about}")
    if request.image is not None and (request.height is None) != (request.width is None):
        raise RequestError("give both height and width, or neither: the picture then brings its own size")


def _spread_texts(request: Request) -> Request:
    """The request with one text per prompt: a single text is repeated for every prompt."""
    spread: dict[str, Any] = {}
    for name, argument in arguments_of(type(request)).items():
        texts = getattr(request, name)
        if not argument.per_prompt or texts is None or len(texts) == request.prompt_count:
            continue
        if len(texts) != 1:
            raise RequestError(
                f"{name} has {len(texts)} texts for {request.prompt_count} prompts; give one, or one for each"
            )
        spread[name] = texts * request.prompt_count
    return dataclasses.replace(request, **spread)
