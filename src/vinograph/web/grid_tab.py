"""The tab for grids: one prompt, drawn with every combination of two settings' values."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from vinograph.arguments import check_seed
from vinograph.errors import RequestError, VinographError
from vinograph.images import save
from vinograph.web import adapter_choice, fragments
from vinograph.web.controls import (
    Controls,
    Updates,
    Values,
    checked_prompt,
    label,
    new_seed,
    options_of,
    typed_number,
)
from vinograph.web.grid_axes import Base, cell_request, check_axes, hint, parse_axis, settings
from vinograph.web.grid_view import Cell, Grid, by_weights, finished, keep, table
from vinograph.web.jobs import Job, error_message
from vinograph.web.page_context import HIDDEN, SHOWN, PageContext, any_of, image_input, on
from vinograph.web.sessions import Session, SessionKey

_EMPTY = fragments.placeholder("A grid of images will appear here.")
_NONE = ("None", "")


class GridTab:
    """The layout of the tab, and what its controls do."""

    def __init__(self, context: PageContext) -> None:
        """Lay the tab out inside the Gradio block that is open."""
        self._context = context
        self._stopping: set[SessionKey] = set()
        self._has_adapters = bool(adapter_choice.offered())
        with gr.Column(elem_classes="columns"):
            with gr.Column(elem_classes="inputs"):
                self._lay_out_inputs()
            with gr.Column(elem_classes="output"):
                self._progress = gr.HTML(elem_id="grid-progress")
                self._output = gr.HTML(_EMPTY, elem_id="grid")
            with gr.Column(elem_classes="settings"):
                self._lay_out_settings()
        self._folder = gr.State(None)  # of the grid that is shown
        self._wire()

    def _lay_out_inputs(self) -> None:
        context = self._context
        self._model = context.model_dropdown()
        example = context.models.examples(context.models.references[0])[0]
        self._prompt = gr.Textbox(example, label="Prompt", lines=2, max_lines=8, elem_id="grid-prompt")
        self._seed = gr.Textbox(label="Seed", placeholder="random", max_lines=1, elem_id="grid-seed")
        offered = [_NONE, *settings(context.models.get(self._model.value), adapters=self._has_adapters)]
        self._axes = [self._lay_out_axis(name, offered, first) for name, first in (("X", "steps"), ("Y", ""))]
        self._go = gr.Button("Generate grid", variant="primary", elem_classes="go", elem_id="generate-grid")
        self._stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-grid")
        self._notes = gr.HTML(elem_classes="notes", elem_id="grid-notes")

    def _lay_out_axis(self, name: str, offered: list[tuple[str, str]], chosen: str) -> tuple[Any, Any]:
        with gr.Row(elem_classes="axis"):
            setting = gr.Dropdown(
                offered, value=chosen, label=f"{name} axis", filterable=False, elem_id=f"axis-{name.lower()}"
            )
            values = gr.Textbox(
                label=f"{name} values",
                placeholder=self._hint(self._model.value, chosen),
                max_lines=3,
                elem_id=f"values-{name.lower()}",
            )
        return setting, values

    def _lay_out_settings(self) -> None:
        with gr.Accordion("Init image", open=False, elem_id="grid-init-image"):
            self._init_image = image_input("Image", 180)
        self._controls = Controls(several=False)
        self._adapters = gr.Textbox(
            label="Adapters",
            info=f"Name and weight, between commas: {', '.join(adapter_choice.offered())}",
            max_lines=3,
            visible=self._has_adapters,
            elem_id="grid-adapters",
        )

    def _wire(self) -> None:
        side = self._controls
        inputs = {self._model, self._prompt, self._seed, self._adapters, self._init_image, self._folder, *side.inputs}
        inputs |= {each for axis in self._axes for each in axis}
        outputs = [self._go, self._stop, self._progress, self._output, self._notes, self._seed, self._folder]
        on(self._go.click, self.generate, inputs, [*outputs, side.size_note])
        on(self._stop.click, self.stop, queue=False)
        for function, model_inputs, model_outputs in self.on_load:
            on(self._model.input, function, model_inputs, model_outputs)
        for setting, values in self._axes:
            on(setting.change, self.change_axis, [self._model, setting], values)
        on(side.size_choice.change, side.custom_size_update, side.size_choice, side.sides, queue=False)
        for scale in side.guidance:
            on(scale.change, self.change_guidance, [self._model, *side.guidance], side.negative_prompt)
        image_set = any_of(self._init_image.upload, self._init_image.clear)
        on(image_set, self.change_init_image, [self._model, self._init_image, side.steps], side.outputs)

    @property
    def on_load(self) -> list[tuple[Any, Any, list[Any]]]:
        """What runs when the page opens or the model changes: function, inputs and outputs."""
        axes = [setting for setting, _ in self._axes]
        return [(self.change_model, [self._model, self._init_image, *axes], [*self._controls.outputs, *axes])]

    def change_model(self, model: str, init_image: str | None, *chosen: str) -> Updates:
        """Show the model's options, and offer them for the axes."""
        pipe = self._context.models.get(model)
        offered = [_NONE, *settings(pipe, adapters=self._has_adapters)]
        known = {name for _, name in offered}
        updates = self._controls.for_model(pipe, init_image=init_image is not None)
        for (setting, _), value in zip(self._axes, chosen, strict=True):
            updates[setting] = gr.update(choices=offered, value=value if value in known else "")
        return updates

    def change_guidance(self, model: str, *scales: float) -> Any:
        """Show the negative prompt while guidance gives it an effect."""
        return self._controls.negative_prompt_update(self._context.models.get(model), scales)

    def change_init_image(self, model: str, init_image: str | None, steps: int | None) -> Updates:
        """Offer the init image's size, or no longer."""
        return self._controls.with_init_image(self._context.models.get(model), init_image is not None, steps or 1)

    def change_axis(self, model: str, setting: str) -> Any:
        """Show an example of the setting's values."""
        return gr.update(placeholder=self._hint(model, setting))

    def _hint(self, model: str, setting: str) -> str:
        return hint(self._context.models.get(model), setting, self._context.models.references) if setting else ""

    def stop(self, request: gr.Request) -> None:
        """Stop the grid that the page draws."""
        self._stopping.add(self._context.session_key(request))
        self._context.stop(request)

    def generate(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Draw the cells one after the other, and show each; other visitors' jobs may come in between."""
        key = self._context.session_key(request)
        session = self._context.sessions.of(key)
        self._stopping.discard(key)
        idle = {self._go: SHOWN, self._stop: HIDDEN, self._progress: ""}
        try:
            grid = self._plan(values, session, request)
            if values[self._folder]:
                shutil.rmtree(values[self._folder], ignore_errors=True)  # it went with its session, or is too old
            cleared = {self._notes: "", self._controls.size_note: "", self._folder: str(grid.folder)}
            yield {self._go: HIDDEN, self._stop: SHOWN, self._output: table(grid), **cleared}
            yield from self._draw(grid, key)
            yield {**idle, self._output: finished(grid)}
        except VinographError as error:
            yield {**idle, self._notes: fragments.notes(str(error), kind="error")}
        finally:
            self._stopping.discard(key)

    def _plan(self, values: Values, session: Session, request: gr.Request) -> Grid:
        """The grid that the controls describe, every cell of which has been checked.

        Raises:
            RequestError: a setting, a value or a combination of them doesn't fit.
        """
        models, model = self._context.models, values[self._model]
        pipe = models.get(model)
        columns, rows = (
            parse_axis(pipe, values[setting] or "", values[typed] or "", models.references)
            for setting, typed in self._axes
        )
        check_axes(columns, rows)
        folder = session.folder / f"grid-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        try:
            base = self._base(values, request, folder)
            cells = [
                Cell(row, column, cell_request(models, base, [(columns, x), (rows, y)]))
                for row, y in enumerate(rows.values)
                for column, x in enumerate(columns.values)
            ]
        except VinographError:
            shutil.rmtree(folder)
            raise
        return Grid(columns, rows, by_weights(cells), base.prompt, folder)

    def _base(self, values: Values, request: gr.Request, folder: Path) -> Base:
        """What all cells have in common."""
        pipe = self._context.models.get(values[self._model])
        takes = pipe.calls["generate"].takes
        has_image = values[self._init_image] is not None and "image" in takes
        arguments, errors = self._controls.read(pipe, values, init_image=has_image)
        for message in errors.values():
            raise RequestError(message)
        option_of = {argument: name for name, argument in options_of(pipe).items()}
        options = {
            option_of[name]: value
            for name, value in arguments.items()
            if name in option_of and (value != takes[name] or has_image)
        }
        options["seed"] = check_seed(label("seed"), typed_number(values[self._seed] or new_seed()))
        size = (arguments["width"], arguments["height"]) if "width" in arguments else None
        chosen = None if size == (takes["width"], takes["height"]) and not has_image else size
        files = {}
        if has_image:
            picture = self._context.read_upload(request, values[self._init_image])
            save(picture, folder / "init.png")
            files["image"] = str(folder / "init.png")
        adapters = adapter_choice.chosen(values[self._adapters])
        return Base(values[self._model], checked_prompt(values[self._prompt]), options, chosen, adapters, files)

    def _draw(self, grid: Grid, key: SessionKey) -> Iterator[Updates]:
        """Draw the cells that are left, until one fails or the visitor stops."""
        began = time.monotonic()
        for done, cell in enumerate(grid.cells):
            if key in self._stopping:
                return
            job = self._context.sessions.begin(key, cell.request)
            for status in job.follow():
                if not status.ended:
                    yield {self._progress: _progress(done, len(grid.cells), time.monotonic() - began, job)}
            if job.status.error is not None:
                yield {self._notes: fragments.notes(error_message(job.status.error), kind="error")}
            if not job.status.results:
                return
            keep(grid, cell, self._context.models.get(cell.request.model), job.status.results[0])
            yield {self._output: table(grid)}


def _progress(done: int, total: int, seconds: float, job: Job) -> str:
    """The number of the image under way and the time left; or the place in the queue."""
    if job.status.place:
        return fragments.progress(job.status)
    step = job.status.step
    share = done + (0.0 if step is None else step.index / step.total / 2)
    left = f" · about {fragments.duration(seconds / done * (total - done))} left" if done else ""
    return fragments.bar(share / total, f"Image {done + 1} of {total}{left}")
