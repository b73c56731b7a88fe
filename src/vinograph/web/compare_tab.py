"""The second tab: two models or two settings draw the same prompt and seed, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from vinograph.arguments import check_seed
from vinograph.errors import RequestError, VinographError
from vinograph.web import fragments, viewing
from vinograph.web.compare_view import GROUP, NAMES, Comparison, compare, comparison_html
from vinograph.web.controls import Controls, Updates, Values, checked_prompt, new_seed, typed_number
from vinograph.web.jobs import DrawRequest, Job, JobStatus, error_message
from vinograph.web.page_context import HIDDEN, SHOWN, PageContext, on
from vinograph.web.restored_controls import restored_arguments
from vinograph.web.sessions import Picture, Session

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
                self._swap = gr.Button("Swap A and B", size="sm", elem_id="swap")
                self._notes = gr.HTML(elem_classes="notes", elem_id="compare-notes")
            with gr.Column(elem_classes="output"):
                self._output = gr.HTML(_EMPTY, elem_id="compared")
            with gr.Column(elem_classes="settings"):
                self._sides = [self._lay_out_side(index) for index in range(len(NAMES))]
        self._compared = gr.State(None)
        self._wire()

    def _lay_out_side(self, index: int) -> tuple[Any, Controls]:
        with gr.Accordion(NAMES[index], elem_id=f"side-{NAMES[index].lower()}"):
            return self._context.model_dropdown(chosen=index), Controls(several=False)

    def _wire(self) -> None:
        controls = [controls for _, controls in self._sides]
        sides = {self._compared, *(model for model, _ in self._sides)}
        sides |= {each for side in controls for each in side.inputs}
        notes = [self._notes, *(side.size_note for side in controls)]
        outputs = [self._go, self._stop, self._output, self._seed, self._compared, *notes]
        on(self._go.click, self.generate, {self._prompt, self._seed, *sides}, outputs)
        swapped = [self._output, self._compared, *notes, *(model for model, _ in self._sides)]
        swapped += [each for side in controls for each in side.outputs]
        on(self._swap.click, self.swap, sides, list(dict.fromkeys(swapped)))
        on(self._stop.click, self._context.stop, queue=False)
        for model, side in self._sides:
            on(model.input, self._model_update(side), model, side.outputs)  # not where the sides are swapped
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
            yield {
                **self._refuse({}),
                self._go: HIDDEN,
                self._stop: SHOWN,
                self._output: _EMPTY,
                self._compared: None,
            }
            if values[self._compared] is not None:
                values[self._compared].discard()
            yield from self._follow(job, draw_requests, sessions.of(key))
        except VinographError as error:
            yield {**self._refuse({None: str(error)}), self._go: SHOWN, self._stop: HIDDEN}

    def _follow(self, job: Job, draw_requests: list[DrawRequest], session: Session) -> Iterator[Updates]:
        """Show the previews of both, then the results or why there are none."""
        pictures: list[Picture] = []
        for status in job.follow():
            for draw_request, result in list(zip(draw_requests, status.results, strict=False))[len(pictures) :]:
                pictures += session.add(self._context.models, draw_request, result)
            yield {self._output: self._side_by_side([each.model for each in draw_requests], pictures, status)}
            if status.ended:
                warnings = [text for result in status.results for text in result.warnings]
                if status.error is not None:
                    warnings.append(error_message(status.error))
                compared = compare(session, *pictures) if len(pictures) == len(NAMES) else None
                below = "" if compared is None else comparison_html(compared)
                yield {
                    self._output: self._side_by_side([each.model for each in draw_requests], pictures) + below,
                    self._compared: compared,
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

    def swap(self, values: Values, request: gr.Request) -> Updates:
        """Swap the settings of both sides, and the pictures where there are two."""
        updates: Updates = {}
        for (model, side), (other_model, other) in zip(self._sides, reversed(self._sides), strict=True):
            pipe = self._context.models.get(values[other_model])
            arguments, errors = other.read(pipe, values)
            if errors:
                return self._refuse(errors)
            updates |= {**restored_arguments(side, pipe, arguments).updates, model: values[other_model]}
        compared: Comparison | None = values[self._compared]
        if compared is None:
            return self._refuse({}) | updates
        session = self._context.sessions.of(self._context.session_key(request))
        if not all(each.file.is_file() for each in compared.pictures):
            return {self._notes: fragments.notes("These pictures are no longer in the history.", kind="error")}
        again = compare(session, *compared.swapped)
        compared.discard()
        shown = self._side_by_side([each.model for each in again.pictures], again.pictures) + comparison_html(again)
        return self._refuse({}) | updates | {self._output: shown, self._compared: again}

    def _refuse(self, errors: dict[Any, str]) -> Updates:
        """Say each error in its place, and empty the places without one."""
        places: dict[Any, Any] = {None: self._notes}
        places |= {side.size_note: side.size_note for _, side in self._sides}
        return {component: fragments.notes(errors.get(place, ""), kind="error") for place, component in places.items()}

    def _side_by_side(self, models: Sequence[str], pictures: Sequence[Picture], status: JobStatus | None = None) -> str:
        """The finished pictures, the preview of the next with its progress, and empty frames."""
        figures = []
        for index, (name, model) in enumerate(zip(NAMES, models, strict=True)):
            title = fragments.facts(f"{name}: {model}")
            if index < len(pictures):
                picture = pictures[index]
                settings = viewing.settings_of(
                    self._context.models.get(picture.model), picture.arguments, picture.adapters
                )
                caption = title + fragments.facts(f"Seed {picture.seed}", *settings, fragments.timings(picture.timings))
                figures.append(viewing.figure(picture, caption, GROUP, f"{name}: {picture.prompt}"))
            else:
                preview = fragments.preview_url(status) if status is not None and index == len(pictures) else ""
                figures.append(fragments.figure(preview, (1, 1), f"{name} (preview)", title))
        progress = "" if status is None else fragments.progress(status)
        return f'<div class="both">{"".join(figures)}</div>{progress}'
