"""Restores requests on the first tab: remembered ones, and those that pictures' files hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import gradio as gr

from vinograph.errors import RequestError
from vinograph.images import READABLE, open_picture
from vinograph.picture_recipe import Recipe, arguments_of_recipe, recipe_in
from vinograph.values import clipped
from vinograph.web import adapter_choice, fragments
from vinograph.web.controls import Controls, Updates
from vinograph.web.gallery_pictures import offered_model
from vinograph.web.page_context import PageContext, on
from vinograph.web.remembered import read_remembered
from vinograph.web.restored_controls import restored, settings_of
from vinograph.web.sessions import Picture

_HERE = Path(__file__).parent
_BUTTONS = """
<div class="links restore">
<input type="file" accept="image/png,image/jpeg,image/webp" aria-label="A picture whose request is restored" hidden>
<button type="button" class="button" data-act="restore">Restore from picture</button>
<button type="button" class="button" data-act="reset">Reset settings</button>
<p role="status"></p></div>
"""
_NOTHING = "doesn't say how it was drawn, so nothing was restored."


class RequestFields(Protocol):
    """The first tab, as far as its request can be restored."""

    model: Any
    prompt: Any
    adapters: Any
    init_image: Any
    shown: Any
    notes: Any
    controls: Controls
    restore_buttons: Any

    @property
    def model_outputs(self) -> list[Any]:
        """The components that change with the model."""
        ...

    def change_model(self, model: str, init_image: str | None, shown: Picture | None) -> Updates:
        """Set the controls for the model."""
        ...


def restore_buttons() -> Any:
    """Lay out the buttons that restore a picture's request, and the model's defaults."""
    script = (_HERE / "restore.js").read_text(encoding="utf-8")
    return gr.HTML(_BUTTONS, elem_id="restore", js_on_load=script)


class Restorer:
    """Sets the fields of the first tab to a request, and tells the browser to remember what they hold."""

    def __init__(self, context: PageContext, fields: RequestFields) -> None:
        """Wire the fields; the Gradio block that holds them is open."""
        self._context = context
        self._fields = fields
        self._stored = gr.Textbox(visible=False)  # its value comes from the browser's storage
        self._watched = {"model": fields.model, "prompt": fields.prompt, "adapters": fields.adapters}
        self._watched |= {"size_choice": fields.controls.size_choice}
        self._watched |= {"width": fields.controls.width, "height": fields.controls.height}
        self._watched |= fields.controls.options
        self._wire()

    @property
    def outputs(self) -> list[Any]:
        """The components that a restored request sets."""
        fields = self._fields
        return [fields.model, fields.prompt, fields.adapters, *fields.model_outputs]

    @property
    def notes(self) -> Any:
        """The component that says what was restored, and what can't be."""
        return self._fields.notes

    @property
    def state(self) -> list[Any]:
        """The inputs of all functions that restore a request."""
        return [self._fields.model, self._fields.init_image, self._fields.shown]

    def _wire(self) -> None:
        fields = self._fields
        recalled = "(model, image, shown) => [model, image, shown, window.vinograph.recalled(model)]"
        self.model_set = on(
            fields.model.input, self.change_model, [*self.state, self._stored], self.outputs, js=recalled
        )
        self.then_remember(self.model_set)
        self.then_remember(on(fields.restore_buttons.click, self.act, self.state, self.outputs))
        changed = [each.change for each in self._watched.values() if each is not fields.model]
        gr.on(changed, None, [*self._watched.values()], None, js=self._script("remember"), show_progress="hidden")

    def _script(self, function: str) -> str:
        """A script that passes the fields' values to one of the functions of ``remembered.js``."""
        return f"(...values) => {{ window.vinograph.{function}({json.dumps([*self._watched])}, values); }}"

    def then_remember(self, event: Any, function: str = "settle") -> None:
        """After an event has set the fields, have the browser remember what they hold."""
        event.success(None, [*self._watched.values()], None, js=self._script(function), show_progress="hidden")

    def wire_load(self, blocks: gr.Blocks) -> None:
        """Restore what the browser remembers when the page opens."""
        recalled = "(model, image, shown) => [model, image, shown, window.vinograph.recalled(null)]"
        self.then_remember(on(blocks.load, self.load, [*self.state, self._stored], self.outputs, js=recalled))

    def load(self, model: str, init_image: str | None, shown: Picture | None, stored: str | None) -> Updates:
        """Set the fields as the browser remembers them, of a model that is still offered."""
        remembered = read_remembered(stored)
        chosen = offered_model(self._context.models, remembered.model)
        note = ""
        if remembered.model is not None and chosen is None:
            note = f"{clipped(remembered.model)} isn't offered any more, so {model} is chosen."
        updates = self.change_model(chosen or model, init_image, shown, stored if chosen else None)
        if remembered.prompt is not None:
            updates[self._fields.prompt] = remembered.prompt
        return self._with_notes(updates, [note])

    def change_model(self, model: str, init_image: str | None, shown: Picture | None, stored: str | None) -> Updates:
        """Set the controls for the model, as they are remembered of it."""
        updates = self._fields.change_model(model, init_image, shown)
        remembered = read_remembered(stored)
        set_to = restored(self._fields.controls, self._context.models.get(model), updates, remembered.values).updates
        set_to[self._fields.model] = model
        if remembered.adapters is not None:
            set_to[self._fields.adapters] = remembered.adapters if _can_be_used(remembered.adapters) else ""
        return set_to

    def act(
        self, model: str, init_image: str | None, shown: Picture | None, event: gr.EventData, request: gr.Request
    ) -> Updates:
        """Return to the model's defaults, or restore the request of an uploaded picture."""
        uploaded = getattr(event, "picture", None)
        if uploaded is None:
            return self.reset(model, init_image, shown)
        try:
            visitor = self._context.session_key(request).visitor
            file = self._context.uploads.own_file(visitor, uploaded["path"] if isinstance(uploaded, dict) else None)
            recipe = self._read(file)
        except RequestError as error:
            return {self._fields.notes: fragments.notes(str(error), kind="error")}
        return self.restore(recipe, file.name, model, init_image, shown)

    def _read(self, file: Path) -> Recipe | None:
        """What drew an uploaded picture. The message of an error names no folder."""
        try:
            return recipe_in(open_picture(file, "picture", formats=READABLE))
        except RequestError as error:
            raise RequestError(str(error).replace(str(file), file.name)) from error

    def reset(self, model: str, init_image: str | None, shown: Picture | None) -> Updates:
        """Set all settings to the model's defaults; the prompt stays."""
        updates = self._fields.change_model(model, init_image, shown)
        for component in self._fields.controls.options.values():
            if isinstance(component, gr.Textbox):  # what was typed stays when the model changes
                updates[component] = {**updates.get(component, {}), **gr.update(value="")}
        return {**updates, self._fields.adapters: ""}

    def restore(
        self, recipe: Recipe | None, name: str, model: str, init_image: str | None, shown: Picture | None
    ) -> Updates:
        """Set the fields to what drew a picture, and note what can't be restored."""
        if recipe is None:
            return {self._fields.notes: fragments.notes(f"{clipped(name)} {_NOTHING}", kind="error")}
        chosen, notes = offered_model(self._context.models, recipe.model) or model, list[str]()
        pipe = self._context.models.get(chosen)
        if recipe.model and offered_model(self._context.models, recipe.model) is None:
            notes.append(f"the model {clipped(recipe.model)}, which isn't offered here")
        arguments, not_followed = arguments_of_recipe(pipe, recipe, _offered(recipe.adapters))
        values, others = settings_of(self._fields.controls, pipe, arguments)
        updates = self.reset(chosen, init_image, shown)
        set_to = restored(self._fields.controls, pipe, updates, values)
        adapters = _offered(recipe.adapters)
        notes += [*set_to.left_out, *others, *not_followed, *_files_missing(recipe, adapters)]
        notes += [f"its {each.replace('_', ' ')}, which the file doesn't hold" for each in recipe.left_out]
        set_to.updates[self._fields.model] = chosen
        set_to.updates[self._fields.prompt] = str(arguments.get("prompt") or "")
        set_to.updates[self._fields.adapters] = ", ".join(f"{each}:{weight:g}" for each, weight in adapters.items())
        missing = [f"Not restored: {'; '.join(dict.fromkeys(notes))}."] if notes else []
        done = f"The request of {clipped(name)} is restored."
        kept = "The init image stays; remove it to draw from words alone." if init_image else ""
        return self._with_notes(set_to.updates, [done, *missing, kept])

    def restore_picture(self, picture: Picture) -> Updates:
        """Set the fields to the request of a picture that was drawn here, but for its init image."""
        fields, pipe = self._fields, self._context.models.get(picture.model)
        init_image = picture.inputs.get("init.png")
        arguments = {name: value for name, value in picture.arguments.items() if name != "prompt"}
        values, others = settings_of(fields.controls, pipe, arguments)
        updates = self.reset(picture.model, None if init_image is None else str(init_image), None)
        set_to = restored(fields.controls, pipe, updates, values)
        lost = [*set_to.left_out, *others, *(["the mask"] if "mask.png" in picture.inputs else [])]
        set_to.updates |= {
            fields.model: picture.model,
            fields.prompt: picture.prompt,
            fields.adapters: ", ".join(f"{name}:{weight:g}" for name, weight in _offered(picture.adapters).items()),
        }
        return self._with_notes(set_to.updates, [f"Not restored: {'; '.join(lost)}."] if lost else [])

    def _with_notes(self, updates: Mapping[Any, Any], notes: list[str]) -> Updates:
        """Updates with notes before those that are there."""
        before = updates.get(self._fields.notes, "")
        return {**updates, self._fields.notes: fragments.notes(*notes) + before}


def _offered(adapters: Mapping[str, float]) -> dict[str, float]:
    """The weights of those adapters that visitors may use, by the names that they type."""
    known = set(adapter_choice.offered())
    stems = {name.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors"): w for name, w in adapters.items()}
    return {stem: weight for stem, weight in stems.items() if stem in known}


def _files_missing(recipe: Recipe, offered: Mapping[str, float]) -> list[str]:
    """The adapters and learned words of a picture that can't be used here."""
    if recipe.infotext is not None:  # whose adapters are named with what isn't followed
        return []
    missing = [
        f"the adapter {clipped(name)}:{weight:g}"
        for name, weight in recipe.adapters.items()
        if not _offered({name: weight}).keys() & offered.keys()
    ]
    return missing + [f"the learned word {clipped(word)}" for word in recipe.embeddings.values()]


def _can_be_used(adapters: str) -> bool:
    try:
        adapter_choice.chosen(adapters)
    except RequestError:
        return False
    return True
