"""Puts the settings of an earlier request back into the controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from vinograph.pipeline import Pipeline
from vinograph.web import fragments
from vinograph.web.controls import CUSTOM, Controls, Updates, size_choices
from vinograph.web.model_pool import Models

_CALL = "generate"
_NOT_SETTINGS = ("prompt", "image", "mask_image", "num_images_per_prompt", "output_type")


@dataclass
class Restored:
    """Updates for the controls, and the arguments that no control holds (``left_out``)."""

    updates: Updates
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RequestComponents:
    """The components of a tab that hold a request, besides its controls; ``notes`` is for messages."""

    model: Any
    prompt: Any
    adapters: Any
    init_image: Any
    notes: Any


class SettingsRestorer:
    """Puts an earlier request into the components of a tab."""

    def __init__(self, models: Models, controls: Controls, components: RequestComponents) -> None:
        """Make the state that tells a restored init image, inside the Gradio block that is open."""
        self._models = models
        self._controls = controls
        self._components = components
        self.restored_image = gr.State(None)
        """The init image whose settings are set already, "" for none; None where the user chose one."""

    @property
    def outputs(self) -> list[Any]:
        """The components that :meth:`restore` sets."""
        found = self._components
        held = [found.model, found.prompt, found.adapters, found.init_image, found.notes]
        return [*held, self.restored_image, *self._controls.outputs]

    def restore(
        self,
        model: str,
        arguments: Mapping[str, Any],
        adapters: Mapping[str, float],
        init_image: str | None = None,
    ) -> Updates:
        """Updates that set the components to a request; a note names what they can't hold.

        Args:
            model: the model's reference.
            arguments: the request's, as :func:`restored` takes them.
            adapters: names of adapters, with their weights.
            init_image: the visitor's own file that the picture was drawn from.

        Raises:
            RequestError: the page has no such model.
        """
        pipe, held = self._models.get(model), self._components
        found = restored(self._controls, pipe, arguments, init_image=init_image is not None)
        lost = [*(["the mask"] if "mask_image" in arguments else []), *found.left_out]
        note = f"Not restored, as no control holds it: {', '.join(lost)}." if lost else ""
        return {
            **found.updates,
            held.model: model,
            held.prompt: arguments.get("prompt", ""),
            held.adapters: ", ".join(f"{name}:{weight:g}" for name, weight in adapters.items()),
            held.init_image: init_image,
            held.notes: fragments.notes(note),
            self.restored_image: init_image or "",
        }


def restored(controls: Controls, pipe: Pipeline, arguments: Mapping[str, Any], *, init_image: bool = False) -> Restored:
    """Updates that set ``controls`` to the ``arguments`` of a request, and all others to the defaults.

    Args:
        controls: the controls of a tab.
        pipe: the model that the request is for.
        arguments: those of one picture, as :meth:`vinograph.Request.record` has them; also fewer.
        init_image: whether the tab has the request's init image.
    """
    takes, components = pipe.calls[_CALL].takes, controls.by_argument(pipe)
    given = {name: value for name, value in arguments.items() if value is not None and name not in _NOT_SETTINGS}
    found = Restored(dict(controls.for_model(pipe, init_image=init_image)))
    _restore_size(found.updates, controls, pipe, given, init_image)
    for component in components.values():
        if isinstance(component, gr.Textbox):
            found.updates[component] |= {"value": ""}
    for name, value in given.items():
        if name in ("width", "height") or (name == "strength" and not init_image):
            continue
        component = components.get(name)
        update = None if component is None else _update(component, found.updates[component], value)
        if component is not None and update is not None:
            found.updates[component] = update
        elif name not in takes or value != takes[name]:
            found.left_out.append(name)
    if "negative_prompt" in components:
        guided = any((given.get(name, takes[name]) or 0) > 1 for name in components if name.endswith("guidance_scale"))
        found.updates[components["negative_prompt"]] |= {"visible": guided}
    return found


def _restore_size(
    updates: Updates, controls: Controls, pipe: Pipeline, given: Mapping[str, Any], init_image: bool
) -> None:
    """Choose the size by its name, or else as a custom one."""
    takes = pipe.calls[_CALL].takes
    if init_image and not {"width", "height"} <= given.keys():
        return  # the size stays that of the init image
    sides = {side: given.get(side, takes[side]) for side in ("width", "height")}
    size = f"{sides['width']}x{sides['height']}"
    offered = {value for _, value in size_choices(pipe.model.manifest.limits)} | {f"{takes['width']}x{takes['height']}"}
    custom = size not in offered
    updates[controls.size_choice] |= {"value": CUSTOM if custom else size}
    updates[controls.sides] |= {"visible": custom}
    for side, component in (("width", controls.width), ("height", controls.height)):
        updates[component] |= {"value": sides[side]}


def _update(component: Any, update: Mapping[str, Any], value: Any) -> dict[str, Any] | None:
    """An update that shows ``value``; None where the component can't hold it."""
    if isinstance(component, gr.Textbox):
        text = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        return {**update, "value": str(text)} if isinstance(text, (str, int, float)) else None
    if isinstance(component, gr.Checkbox):
        return {**update, "value": value} if isinstance(value, bool) else None
    if isinstance(component, gr.Dropdown):
        if not isinstance(value, str):
            return None
        choices = list(update.get("choices") or component.choices)
        known = [each[1] if isinstance(each, (list, tuple)) else each for each in choices]
        return {**update, "choices": choices if value in known else [*choices, (value, value)], "value": value}
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    greatest = update.get("maximum") or component.maximum
    return {**update, "value": value, "maximum": max(greatest, value)}
