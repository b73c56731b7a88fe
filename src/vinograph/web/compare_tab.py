"""The second tab: two models or two settings draw the same prompt and seed, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from vinograph.arguments import check_seed
from vinograph.errors import RequestError, VinographError
from vinograph.images import Size, resize
from vinograph.web import fragments
from vinograph.web.controls import Controls, Updates, Values, checked_prompt, new_seed, typed_number
from vinograph.web.jobs import DrawRequest, Job, JobStatus, error_message
from vinograph.web.page_context import HIDDEN, SHOWN, PageContext, on
from vinograph.web.sessions import Picture, Session

_NAMES = ("A", "B")
_EMPTY = fragments.placeholder("Two images will appear here.")


class CompareTab:
    """The layout of the tab, and what its controls do."""

    def __init__(self, context: PageContext) -> None:
        """Lay the tab out inside the Gradio block that is open."""
        self._context = context
        with gr.Column(elem_classes="columns"):
            with gr.Column(elem_classes="inputs"):
                example = context.models.examples(context.models.references[0])[0]
                self._prompt = gr.Textbox(example, label="Prompt", lines=3, max_lines=8, elem_id="compare-prompt")
                self._seed = gr.Textbox(label="Seed", placeholder="random", max_lines=1, elem_id="compare-seed")
                self._go = gr.Button("Generate both", variant="primary", elem_classes="go", elem_id="compare")
                self._stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-comparing")
                self._notes = gr.HTML(elem_classes="notes", elem_id="compare-notes")
            with gr.Column(elem_classes="output"):
                self._output = gr.HTML(_EMPTY, elem_id="compared")
            with gr.Column(elem_classes="settings"):
                self._sides = [self._lay_out_side(index) for index in range(len(_NAMES))]
        self._wire()

    def _lay_out_side(self, index: int) -> tuple[Any, Controls]:
        with gr.Accordion(_NAMES[index], elem_id=f"side-{_NAMES[index].lower()}"):
            return self._context.model_dropdown(chosen=index), Controls(several=False)

    def _wire(self) -> None:
        controls = [controls for _, controls in self._sides]
        inputs = {self._prompt, self._seed, *(model for model, _ in self._sides)}
        inputs |= {each for side in controls for each in side.inputs}
        outputs = [self._go, self._stop, self._output, self._notes, self._seed, *(side.size_note for side in controls)]
        on(self._go.click, self.generate, inputs, outputs)
        on(self._stop.click, self._context.stop, queue=False)
        for model, side in self._sides:
            on(model.change, self._model_update(side), model, side.outputs)
            on(side.size_choice.change, side.custom_size_update, side.size_choice, side.sides, queue=False)
            for scale in side.guidance:
                update = self._negative_prompt_update(side)
                on(scale.change, update, [model, *side.guidance], side.negative_prompt)

    @property
    def on_load(self) -> list[tuple[Any, Any, list[Any]]]:
        """The functions that run when the page opens, each with its input and its outputs."""
        return [(self._model_update(side), model, side.outputs) for model, side in self._sides]

    def _model_update(self, side: Controls) -> Any:
        return lambda model: side.for_model(self._context.models.get(model))

    def _negative_prompt_update(self, side: Controls) -> Any:
        return lambda model, *scales: side.negative_prompt_update(self._context.models.get(model), scales)

    def generate(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Draw both pictures in one job, showing their previews."""
        sessions, key = self._context.sessions, self._context.session_key(request)
        try:
            draw_requests, errors = self._draw_requests(values)
            if errors:
                yield self._refuse(errors)
                return
            job = sessions.begin(key, *draw_requests)
            yield {self._go: HIDDEN, self._stop: SHOWN, **self._refuse({}), self._output: _EMPTY}
            yield from self._follow(job, draw_requests, sessions.of(key))
        except VinographError as error:
            yield {**self._refuse({None: str(error)}), self._go: SHOWN, self._stop: HIDDEN}

    def _follow(self, job: Job, draw_requests: list[DrawRequest], session: Session) -> Iterator[Updates]:
        """Show the previews of both, then the results or why there are none."""
        pictures: list[Picture] = []
        for status in job.follow():
            for draw_request, result in list(zip(draw_requests, status.results, strict=False))[len(pictures) :]:
                pictures += session.add(self._context.models, draw_request, result)
            yield {self._output: _side_by_side(draw_requests, pictures, status)}
            if status.ended:
                warnings = [text for result in status.results for text in result.warnings]
                if status.error is not None:
                    warnings.append(error_message(status.error))
                slider = _under_a_slider(*pictures) if len(pictures) == len(_NAMES) else ""
                yield {
                    self._output: _side_by_side(draw_requests, pictures) + slider,
                    self._notes: fragments.notes(*dict.fromkeys(warnings)),
                    self._go: SHOWN,
                    self._stop: HIDDEN,
                }

    def _draw_requests(self, values: Values) -> tuple[list[DrawRequest], dict[Any, str]]:
        """The requests of both sides; and what is wrong with them, by the place to say it."""
        errors: dict[Any, str] = {}
        seed = typed_number(values[self._seed] or new_seed())
        try:
            check_seed("Seed", seed)
        except RequestError as error:
            errors[None] = str(error)
        prompt = checked_prompt(values[self._prompt])
        draw_requests = []
        for model, side in self._sides:
            arguments, side_errors = side.read(self._context.models.get(values[model]), values)
            draw_requests.append(DrawRequest(values[model], "generate", {"prompt": prompt, **arguments, "seed": seed}))
            errors |= side_errors
        return draw_requests, errors

    def _refuse(self, errors: dict[Any, str]) -> Updates:
        """Say each error in its place, and empty the places without one."""
        places: dict[Any, Any] = {None: self._notes}
        places |= {side.size_note: side.size_note for _, side in self._sides}
        return {component: fragments.notes(errors.get(place, ""), kind="error") for place, component in places.items()}


def _side_by_side(draw_requests: list[DrawRequest], pictures: list[Picture], status: JobStatus | None = None) -> str:
    """The finished pictures, the preview of the next with its progress, and empty frames."""
    figures = []
    for index, (name, draw_request) in enumerate(zip(_NAMES, draw_requests, strict=True)):
        title = fragments.facts(f"{name}: {draw_request.model}")
        if index < len(pictures):
            picture = pictures[index]
            caption = title + fragments.facts(f"Seed {picture.seed}", fragments.timings(picture.timings))
            figures.append(fragments.figure(picture.address, picture.size, f"{name}: {picture.prompt}", caption))
        else:
            preview = fragments.preview_url(status) if status is not None and index == len(pictures) else ""
            figures.append(fragments.figure(preview, (1, 1), f"{name} (preview)", title))
    progress = "" if status is None else fragments.progress(status)
    return f'<div class="both">{"".join(figures)}</div>{progress}'


def _under_a_slider(one: Picture, other: Picture) -> str:
    """Both pictures under a slider, the other in the size of the one."""
    right = other.address
    if one.size != other.size:
        with Image.open(other.file) as picture:
            right = fragments.data_url(resize(picture.convert("RGB"), Size(width=one.size[0], height=one.size[1])))
    names = [f"{name}: {each.model}" for name, each in zip(_NAMES, (one, other), strict=True)]
    return fragments.slider(one.address, right, names, one.size)
