"""Sets the controls of a request to given values, where the model takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from vinograph.arguments import check_size
from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.pipeline import Pipeline
from vinograph.request import Argument, arguments_of
from vinograph.schedulers.named import choose
from vinograph.values import clipped
from vinograph.web.controls import CUSTOM, Controls, Updates, label, typed_number

_CALL = "generate"
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
_NOT_SETTINGS = ("prompt", "width", "height", "output_type")


@dataclass
class Restored:
    """Updates that set the controls, and ``left_out``, the values that they can't be set to."""

    updates: Updates
    left_out: list[str] = field(default_factory=list)


def restored(controls: Controls, pipe: Pipeline, updates: Updates, values: Mapping[str, Any]) -> Restored:
    """The ``updates`` that show the model's defaults, changed to ``values`` by the options' names.

    ``values["size"]`` is a text such as "512x256". What doesn't fit the model keeps its default.
    """
    found = Restored(dict(updates))
    arguments = controls.arguments(pipe)
    for name, value in values.items():
        if name == "size":
            fits = _set_size(controls, pipe, found.updates, value)
        else:
            fits = name in arguments and _set(controls, pipe, found.updates, name, value)
        if not fits:
            found.left_out.append(f"{label(name)} {clipped(str(value))}")
    scales = [_value(found.updates.get(each)) for each in controls.guidance]
    shown = controls.negative_prompt_update(pipe, [scale if isinstance(scale, (int, float)) else 0 for scale in scales])
    found.updates[controls.negative_prompt] = {**found.updates.get(controls.negative_prompt, {}), **shown}
    return found


def restored_arguments(controls: Controls, pipe: Pipeline, arguments: Mapping[str, Any]) -> Restored:
    """Updates that set the controls to a call's ``arguments``, and all others to the model's defaults."""
    values, others = settings_of(controls, pipe, arguments)
    found = restored(controls, pipe, controls.for_model(pipe), values)
    return Restored(found.updates, [*found.left_out, *others])


def settings_of(controls: Controls, pipe: Pipeline, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values by the options' names for a call's ``arguments``, and those that no control sets."""
    takes, option_of = pipe.calls[_CALL].takes, dict[str, str]()
    for name, argument in controls.arguments(pipe).items():
        option_of.setdefault(argument, name)
    values = {option_of[name]: value for name, value in arguments.items() if name in option_of}
    if {"width", "height"} <= arguments.keys():
        values["size"] = f"{arguments['width']}x{arguments['height']}"
    others = [
        f"{name} {clipped(str(value))}"
        for name, value in arguments.items()
        if name not in (*option_of, *_NOT_SETTINGS) and _plain(value) != _plain(takes.get(name))
    ]
    return values, others


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _value(update: Any) -> Any:
    return update.get("value") if isinstance(update, dict) else None


def _set(controls: Controls, pipe: Pipeline, updates: Updates, name: str, value: Any) -> bool:
    """Set the control of an option, if the value fits the model and the control."""
    component, argument = controls.options[name], controls.arguments(pipe)[name]
    declared = arguments_of(registry.family(pipe.model.manifest.family).request)[argument]
    fitted: Any
    if isinstance(component, gr.Checkbox):
        fitted = value if isinstance(value, bool) else None
    elif argument in pipe.calls[_CALL].choices:
        fitted = _scheduler(value, pipe.calls[_CALL].choices[argument])
    elif isinstance(component, gr.Dropdown):
        fitted = value if isinstance(value, str) and value in [each for _, each in component.choices] else None
    elif isinstance(component, gr.Slider):
        fitted = _number(pipe, name, declared, value)
    else:
        fitted = _text(pipe, name, declared, value)
    if fitted is None:
        return False
    before = updates.get(component) or {}
    changed = {**before, "value": fitted}
    if isinstance(component, gr.Slider):
        most = before.get("maximum", component.maximum)
        if fitted > most and "maximum" not in before:
            return False
        if fitted < component.minimum:
            return False
        changed |= {"maximum": max(most, fitted)} if "maximum" in before else {}
    updates[component] = changed
    return True


def _number(pipe: Pipeline, name: str, declared: Argument, value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if declared.slider is not None and value == declared.slider[0]:  # which may stand for no value
        return value
    return value if _passes(pipe, name, declared, value) else None


def _text(pipe: Pipeline, name: str, declared: Argument, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    typed = typed_number(value) if declared.check.scalar is int else value
    return str(value) if value == "" or _passes(pipe, name, declared, typed) else None


def _passes(pipe: Pipeline, name: str, declared: Argument, value: Any) -> bool:
    try:
        declared.check(label(name), value, pipe.calls[_CALL].limits(pipe.model.manifest.limits, {}))
    except RequestError:
        return False
    return True


def _scheduler(value: Any, offered: tuple[str, ...]) -> str | None:
    """The offered name of the same scheduler; empty for the model's own."""
    if value == "" or value in offered:
        return str(value)
    if not isinstance(value, (str, Mapping)):
        return None
    try:
        wanted = choose(value)
        return next((each for each in offered if choose(each) == wanted), None)
    except RequestError:
        return None


def _set_size(controls: Controls, pipe: Pipeline, updates: Updates, value: Any) -> bool:
    """Choose a size: by its name where it has one, else as a custom size."""
    sides = _SIZE.fullmatch(value) if isinstance(value, str) else None
    choice = updates.get(controls.size_choice)
    if sides is None or not isinstance(choice, dict):
        return False
    if value in [each for _, each in choice["choices"]]:
        updates[controls.size_choice] = {**choice, "value": value}
        return True
    call = pipe.calls[_CALL]
    limits = call.limits(pipe.model.manifest.limits, dict(call.takes))
    try:
        width, height = (check_size("size", int(side), limits) for side in sides.groups())
    except RequestError:
        return False
    updates[controls.size_choice] = {**choice, "value": CUSTOM}
    updates[controls.sides] = gr.update(visible=True)
    for side, number in ((controls.width, width), (controls.height, height)):
        updates[side] = {**updates.get(side, {}), "value": number}
    return True
