"""The first tab: a prompt, the settings, and the picture with its previews."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from vinograph.adapters.adaptation import adapt
from vinograph.errors import VinographError
from vinograph.web import adapter_choice, fragments
from vinograph.web.controls import Controls, Updates, Values, checked_prompt
from vinograph.web.init_image import InitImageSection
from vinograph.web.jobs import DrawRequest, Job, JobStatus, error_message
from vinograph.web.page_context import HIDDEN, SHOWN, PageContext, on
from vinograph.web.sessions import Picture, Session, address

_EMPTY = fragments.placeholder("Your image will appear here.")
_MAX_EXAMPLES = 4
# Sends the value of a button that is clicked in a block of HTML.
_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { chosen: button.value });
});"""


class GenerateTab:
    """The layout of the tab, and what its controls do."""

    def __init__(self, context: PageContext) -> None:
        """Lay the tab out inside the Gradio block that is open."""
        self._context = context
        with gr.Column(elem_classes="columns"):
            with gr.Column(elem_classes="inputs"):
                self._lay_out_prompt()
            with gr.Column(elem_classes="output"):
                self._output = gr.HTML(_EMPTY, elem_id="output", js_on_load=_CLICKS)
            with gr.Column(elem_classes="settings"):
                self._lay_out_settings()
            with gr.Column(elem_classes="history"):
                self._lay_out_history()
        self._shown = gr.State(None)  # the finished picture in the output
        self._wire()

    def _lay_out_prompt(self) -> None:
        self._model = self._context.model_dropdown()
        self._prompt = gr.Textbox(
            label="Prompt", lines=3, max_lines=8, autofocus=True, elem_id="prompt", placeholder="a red house …"
        )
        self._go = gr.Button("Generate", variant="primary", elem_classes="go", elem_id="generate")
        self._stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        self._notes = gr.HTML(elem_classes="notes", elem_id="notes")
        with gr.Row(elem_classes="examples"):
            prompts = self._context.models.examples(self._model.value)
            self._examples = [gr.Button(prompt, size="sm") for prompt in prompts[:_MAX_EXAMPLES]]

    def _lay_out_settings(self) -> None:
        self._init_image = InitImageSection(self._context)
        self._controls = Controls()
        names = adapter_choice.offered()
        self._adapters = gr.Textbox(
            label="Adapters",
            placeholder=f"{names[0]}:0.8" if names else "",
            info=f"Name and weight, between commas: {', '.join(names)}",
            max_lines=3,
            visible=bool(names),
            elem_id="adapters",
        )

    def _lay_out_history(self) -> None:
        self._gallery = gr.HTML(fragments.gallery([]), elem_id="history", js_on_load=_CLICKS)
        with gr.Accordion("Reproduce in Python or shell", open=False, visible=False) as self._snippets:
            self._python = gr.Textbox(
                label="Python", lines=4, interactive=False, buttons=["copy"], elem_classes="lines", elem_id="python"
            )
            self._shell = gr.Textbox(
                label="Shell", lines=2, interactive=False, buttons=["copy"], elem_classes="lines", elem_id="shell"
            )

    def _wire(self) -> None:
        controls = self._controls
        inputs = {self._model, self._prompt, self._shown, self._adapters, *self._init_image.inputs, *controls.inputs}
        outputs = [self._go, self._stop, self._output, self._notes, self._shown]
        outputs += [self._gallery, self._snippets, self._python, self._shell, controls.size_note, controls.seed_note]
        generating = on(self._go.click, self.generate, inputs, outputs)
        on(generating.failure, lambda: {self._go: SHOWN, self._stop: HIDDEN}, None, [self._go, self._stop])
        on(self._stop.click, self._context.stop, queue=False)
        for function, model_inputs, model_outputs in self.on_load:
            on(self._model.change, function, model_inputs, model_outputs)
        for each in self._examples:
            on(each.click, lambda text: text, each, self._prompt, queue=False)
        on(controls.size_choice.change, controls.custom_size_update, controls.size_choice, controls.sides, queue=False)
        for side in (controls.width, controls.height):
            on(side.change, self.check_size, inputs, controls.size_note)
        for scale in controls.guidance:
            on(scale.change, self.change_guidance, [self._model, *controls.guidance], controls.negative_prompt)
        self._init_image.wire(self._model, controls, self._shown, self._notes)
        section = self._init_image
        on(self._output.click, self.use_as_init_image, self._shown, [section.image, section.accordion])
        shown = [self._output, self._shown, self._notes, self._python, self._shell]
        on(self._gallery.click, self.show_from_history, None, shown)

    @property
    def on_load(self) -> list[tuple[Any, Any, list[Any]]]:
        """What runs when the page opens or the model changes: function, inputs and outputs."""
        inputs = [self._model, self._init_image.image, self._shown]
        outputs = [*self._controls.outputs, *self._examples, *self._init_image.outputs, self._notes]
        return [(self.change_model, inputs, outputs)]

    def change_model(self, model: str, init_image: str | None, shown: Picture | None) -> Updates:
        """Set the controls for the model; the warnings of the picture that is ``shown`` stay."""
        pipe = self._context.models.get(model)
        takes = pipe.calls["generate"].takes
        examples = dict(zip(self._examples, self._context.models.examples(model), strict=False))
        return {
            **self._controls.for_model(pipe, init_image=init_image is not None and "image" in takes),
            **examples,
            **self._init_image.for_model(pipe, has_image=init_image is not None),
            self._notes: _warnings(shown),
        }

    def change_guidance(self, model: str, *scales: float) -> Any:
        """Show the negative prompt while guidance gives it an effect."""
        return self._controls.negative_prompt_update(self._context.models.get(model), scales)

    def check_size(self, values: Values) -> str:
        """Say what is wrong with a custom size while it is typed."""
        pipe = self._context.models.get(values[self._model])
        return fragments.notes(self._controls.size_error(pipe, values), kind="error")

    def use_as_init_image(self, shown: Picture | None) -> Updates:
        """Make the picture that is shown the init image."""
        section = self._init_image
        return {section.image: str(shown.file) if shown else None, section.accordion: gr.update(open=True)}

    def show_from_history(self, request: gr.Request, event: gr.EventData) -> Updates:
        """Show the picture of the history that was clicked."""
        pictures = self._context.sessions.of(self._context.session_key(request)).pictures
        chosen = getattr(event, "chosen", None)
        return next((self._show(each) for each in pictures if each.address == chosen), {self._shown: gr.skip()})

    def generate(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Draw what the controls say, showing previews."""
        sessions, key = self._context.sessions, self._context.session_key(request)
        session = sessions.of(key)
        draw_request: DrawRequest | dict[Any, str] | None = None
        try:
            draw_request = self._draw_request(values, session, request)
            if isinstance(draw_request, dict):
                yield self._refuse(draw_request)
                return
            job = sessions.begin(key, draw_request)
            yield {self._go: HIDDEN, self._stop: SHOWN, **self._refuse({})}
            yield from self._follow(job, draw_request, session, values[self._shown])
        except VinographError as error:
            yield {**self._refuse({None: str(error)}), self._go: SHOWN, self._stop: HIDDEN}
        finally:
            if isinstance(draw_request, DrawRequest):
                session.discard(draw_request)

    def _follow(self, job: Job, draw_request: DrawRequest, session: Session, last: Picture | None) -> Iterator[Updates]:
        """Show the job's previews, then its result or why there is none."""
        prompt = str(draw_request.arguments["prompt"])
        for status in job.follow():
            if not status.ended:
                yield {self._output: fragments.unfinished(status, prompt)}
            elif status.results:
                added = session.add(self._context.models, draw_request, status.results[0])
                history = [(each.address, each.prompt) for each in session.pictures]
                done = {self._gallery: fragments.gallery(history), self._snippets: SHOWN}
                yield {**self._show(added[0]), **done, self._go: SHOWN, self._stop: HIDDEN}
            else:
                yield {**self._without_result(status, prompt, last), self._go: SHOWN, self._stop: HIDDEN}

    def _draw_request(self, values: Values, session: Session, request: gr.Request) -> DrawRequest | dict[Any, str]:
        """The request that the controls describe; or errors in it, by the place to say them."""
        model = values[self._model]
        pipe = self._context.models.get(model)
        prompt = checked_prompt(values[self._prompt])
        has_init_image = values[self._init_image.image] is not None and "image" in pipe.calls["generate"].takes
        arguments, errors = self._controls.read(pipe, values, init_image=has_init_image)
        if errors:
            return errors
        adaptation = adapt(
            pipe.model, adapter_choice.chosen(values[self._adapters])
        )  # what doesn't fit is said at once
        initial = self._init_image.arguments(pipe, values, session, request)
        return DrawRequest(model, "generate", {"prompt": prompt, **initial, **arguments}, adaptation)

    def _refuse(self, errors: dict[Any, str]) -> Updates:
        """Say each error in its place, and empty the places without one."""
        places: dict[Any, Any] = {None: self._notes}
        places |= {note: note for note in (self._controls.size_note, self._controls.seed_note)}
        return {component: fragments.notes(errors.get(place, ""), kind="error") for place, component in places.items()}

    def _without_result(self, status: JobStatus, prompt: str, last: Picture | None) -> Updates:
        """Show the last preview of a stopped job; after an error, the ``last`` picture is back."""
        if status.error is not None:
            before = {self._output: _EMPTY} if last is None else self._show(last)
            return {**before, self._notes: fragments.notes(error_message(status.error), kind="error")}
        after = "" if status.step is None else f" after {status.step.stage} {status.step.index} of {status.step.total}"
        if status.preview is None:
            return {self._output: fragments.placeholder(f"Stopped{after}.")}
        caption = fragments.facts(f"Stopped{after}")
        return {self._output: fragments.figure(fragments.preview_url(status), status.preview.size, prompt, caption)}

    def _show(self, picture: Picture) -> Updates:
        """Show a finished picture with its facts, its links and its snippets."""
        seed = "" if picture.seed is None else f"Seed {picture.seed}"
        size = f"{picture.size[0]}×{picture.size[1]}"
        links = [fragments.download(picture.address, picture.name, "Download PNG")]
        links += [fragments.download(address(file), name, name) for name, file in picture.inputs.items()]
        if "image" in self._context.models.get(picture.model).calls["generate"].takes:
            links.append(fragments.button("Use as init image", picture.address))
        caption = fragments.facts(seed, size, picture.model, fragments.timings(picture.timings))
        caption += f'<div class="links">{"".join(links)}</div>'
        return {
            self._output: fragments.figure(picture.address, picture.size, picture.prompt, caption),
            self._shown: picture,
            self._notes: _warnings(picture),
            self._python: picture.python,
            self._shell: picture.shell,
        }


def _warnings(picture: Picture | None) -> str:
    """The warnings of the drawing that made the picture."""
    return "" if picture is None else fragments.notes(*picture.warnings)
