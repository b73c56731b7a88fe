"""The first tab: a prompt, the settings, and the picture with its previews."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from vinograph.adapters.adaptation import adapt
from vinograph.errors import VinographError
from vinograph.pipeline import Pipeline
from vinograph.web import adapter_choice, fragments, viewing
from vinograph.web.controls import Controls, Updates, Values, checked_prompt
from vinograph.web.estimate_line import EstimateLine
from vinograph.web.gallery_pictures import picture_of
from vinograph.web.gallery_routes import identifier_in, picture_address
from vinograph.web.init_image import InitImageSection
from vinograph.web.jobs import DrawRequest, Job, error_message
from vinograph.web.live_panel import NOTIFY, LivePanel, live_request
from vinograph.web.model_choice import ModelChoice
from vinograph.web.page_context import CLICKS, HIDDEN, SHOWN, PageContext, any_of, on
from vinograph.web.prompt_list import prompts_of
from vinograph.web.queue_list import MOST_QUEUED, QueuedRequest
from vinograph.web.queue_panel import QueuePanel
from vinograph.web.restoring import Restorer, restore_buttons
from vinograph.web.sessions import Picture, Session, file_at
from vinograph.web.style_choice import StyleChoice

_EMPTY = fragments.placeholder("Your image will appear here.")
_MAX_EXAMPLES = 4
_MAX_RECALLED = 12  # pictures of the gallery in the history
# What is clicked, and what the viewer's button says.
_OUTPUT_CLICKS = f"""{CLICKS}
document.addEventListener("use-as-init-image", (event) => trigger("click", {{ chosen: "init " + event.detail }}));"""


class GenerateTab:
    """The layout of the tab, and what its controls do."""

    def __init__(self, context: PageContext) -> None:
        """Lay the tab out inside the Gradio block that is open."""
        self._context = context
        with gr.Column(elem_classes="columns"):
            with gr.Column(elem_classes="inputs"):
                self._lay_out_prompt()
            with gr.Column(elem_classes="output"):
                self._output = gr.HTML(_EMPTY, elem_id="output", js_on_load=_OUTPUT_CLICKS)
            with gr.Column(elem_classes="settings"):
                self._lay_out_settings()
            with gr.Column(elem_classes="history"):
                self._lay_out_history()
        self._shown = self.shown = gr.State(None)  # the finished picture in the output
        self._wire()

    def _lay_out_prompt(self) -> None:
        self._models = ModelChoice(self._context)
        self._model = self.model = self._models.dropdown
        self._prompt = self.prompt = gr.Textbox(
            label="Prompt", lines=3, max_lines=8, autofocus=True, elem_id="prompt", placeholder="a red house …"
        )
        self._style = StyleChoice()
        with gr.Row(elem_classes="switches"):
            self._list = gr.Checkbox(label="One prompt per line", elem_id="prompt-list")
            self._live = LivePanel(self._context)
        self._go = gr.Button("Generate", variant="primary", elem_classes="go", elem_id="generate")
        self._estimate = EstimateLine(self._context)
        self._live.lay_out_keep()
        self._stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        self._queue = QueuePanel(self._context)
        self._notes = self.notes = gr.HTML(elem_classes="notes", elem_id="notes")
        with gr.Row(elem_classes="examples"):
            prompts = self._context.models.examples(self._model.value)
            self._examples = [gr.Button(prompt, size="sm") for prompt in prompts[:_MAX_EXAMPLES]]

    def _lay_out_settings(self) -> None:
        self._init_image = InitImageSection(self._context)
        self.init_image = self._init_image.image
        self._controls = self.controls = Controls()
        self._adapters = self.adapters = adapter_choice.adapter_list()
        self.restore_buttons = restore_buttons()

    def _lay_out_history(self) -> None:
        self._gallery = gr.HTML(fragments.gallery([]), elem_id="history", js_on_load=CLICKS)
        with gr.Accordion("Reproduce in Python or shell", open=False, elem_id="reproduce"):
            self._python = gr.Textbox(
                label="Python", lines=4, interactive=False, buttons=["copy"], elem_classes="lines", elem_id="python"
            )
            self._shell = gr.Textbox(
                label="Shell", lines=2, interactive=False, buttons=["copy"], elem_classes="lines", elem_id="shell"
            )

    def _wire(self) -> None:
        controls = self._controls
        inputs = {self._model, self._prompt, self._style.dropdown, self._list, self._adapters}
        inputs |= {*self._init_image.inputs, *controls.inputs}
        outputs = [self._stop, self._output, self._notes, self._shown, self._queue.list]
        outputs += [self._gallery, self._python, self._shell, controls.size_note, controls.seed_note]
        adding = on(self._go.click, self.add, inputs, outputs, trigger_mode="multiple")
        following = on(adding.success, self.follow, None, outputs, trigger_mode="multiple")
        on(following.failure, lambda: {self._stop: HIDDEN}, None, [self._stop])
        on(self._stop.click, self.stop, None, self._queue.list, queue=False)
        self.restorer = Restorer(self._context, self)
        self._models.wire(self.restorer, following.success)
        self._wire_changes(inputs, outputs, following, self.restorer.model_set.success)
        for each in self._examples:
            on(each.click, lambda text: text, each, self._prompt, queue=False)
        on(controls.size_choice.change, controls.custom_size_update, controls.size_choice, controls.sides, queue=False)
        for side in (controls.width, controls.height):
            on(side.change, self.check_size, inputs, controls.size_note)
        for scale in controls.guidance:
            on(scale.change, self.change_guidance, [self._model, *controls.guidance], controls.negative_prompt)
        self._init_image.wire(self._model, controls, self._shown, self._notes)
        acted = [*self.restorer.outputs, *self._init_image.image_outputs]
        acted += [self._output, self._shown, self._python, self._shell]
        acting = on(
            self._output.click,
            self.act_on_picture,
            [self._model, controls.steps, self._shown],
            list(dict.fromkeys(acted)),
        )
        self.restorer.then_remember(acting)
        shown = [self._output, self._shown, self._notes, self._python, self._shell]
        on(self._gallery.click, self.show_from_history, None, shown)

    def _wire_changes(self, inputs: set[Any], outputs: list[Any], following: Any, model_set: Any) -> None:
        """Wire what follows a change of the settings: the estimate, and live drawing.

        After a change of the model both wait for its defaults. Controls don't check the values,
        because what doesn't fit for a moment is nobody's mistake.
        """
        mask = self._init_image.mask
        settings = [each.change for each in inputs - {self._model, self._prompt, mask}]
        shape = inputs - {self._prompt, mask}
        last = {"trigger_mode": "always_last", "preprocess": False}
        changes = [*settings, self._prompt.change, mask.change, self._live.switch.change]
        for each in (any_of(*changes), model_set):
            on(each, None, js=NOTIFY)
        drawing = self._live.wire(inputs, outputs, self._live_request, self._output, self._notes)
        for each in (any_of(*settings), model_set, following.success, self._shown.change, drawing.success):
            on(each, self.estimate, shape, self._estimate.line, **last)
        on(self._live.keep.click, self.keep, None, [*outputs, self._live.keep])

    @property
    def model_outputs(self) -> list[Any]:
        """The components that change with the model."""
        sections = [*self._init_image.outputs, self._live.switch]
        return [*self._controls.outputs, *self._examples, *sections, self._notes]

    @property
    def on_load(self) -> list[tuple[Any, Any, list[Any]]]:
        """What runs when the page opens, besides what restores the request: function, inputs and outputs."""
        return [
            (self.reopen, None, [self._gallery]),
            (self._style.offered, None, [self._style.dropdown]),
            (self._models.rendered, None, [self._models.list]),
        ]

    def reopen(self, request: gr.Request) -> str:
        """The history of a page that is loaded again, and the gallery's latest pictures."""
        return fragments.gallery(self._pictures(self._context.sessions.reopen(self._context.session_key(request))))

    def _pictures(self, session: Session) -> list[tuple[str, str]]:
        """Address and caption of the session's pictures, then of the gallery's latest ones."""
        pictures = [(each.address, viewing.viewer_caption(each)) for each in session.pictures]
        gallery = self._context.gallery
        if gallery is None:
            return pictures
        own = {each.gallery for each in session.pictures}
        latest = gallery.list(count=_MAX_RECALLED).entries
        return pictures + [(picture_address(each), each.prompt) for each in latest if each.identifier not in own]

    def change_model(self, model: str, init_image: str | None, shown: Picture | None) -> Updates:
        """Set the controls for the model; the warnings of the picture that is ``shown`` stay."""
        pipe = self._context.models.get(model)
        takes = pipe.calls["generate"].takes
        examples = dict(zip(self._examples, self._context.models.examples(model), strict=False))
        return {
            **self._controls.for_model(pipe, init_image=init_image is not None and "image" in takes),
            **examples,
            **self._init_image.for_model(pipe, has_image=init_image is not None),
            self._notes: viewing.warnings(shown),
            **self._live.for_model(pipe),
        }

    def change_guidance(self, model: str, *scales: float) -> Any:
        """Show the negative prompt while guidance gives it an effect."""
        return self._controls.negative_prompt_update(self._context.models.get(model), scales)

    def check_size(self, values: Values) -> str:
        """Say what is wrong with a custom size while it is typed."""
        pipe = self._context.models.get(values[self._model])
        return fragments.notes(self._controls.size_error(pipe, values), kind="error")

    def act_on_picture(
        self, model: str, steps: int | None, shown: Picture | None, request: gr.Request, event: gr.EventData
    ) -> Updates:
        """Do what a button by a picture in the output, or in the viewer, says."""
        action, _, chosen = str(getattr(event, "chosen", "")).partition(" ")
        try:
            key = self._context.session_key(request)
            session = self._context.sessions.of(key)
            picture = self._find(session, chosen)
            if action == "init":
                file = picture.file if picture else self._context.uploads.own_file(key.visitor, file_at(chosen))
                updates = self._init_image.with_image(self._context.models.get(model), str(file), steps, request)
                opened = {**updates[self._init_image.accordion], "open": True}
                notes = updates[self._notes] + viewing.warnings(shown)
                return {**updates, self._init_image.accordion: opened, self._notes: notes}
        except VinographError as error:
            return {self._notes: fragments.notes(str(error), kind="error")}
        if picture is None:
            return {self._notes: fragments.notes("This picture is no longer in the history.", kind="error")}
        if action == "settings":
            return self._restore(picture, request)
        together = session.of_request(picture)
        return self._show_all(together) if action == "all" else self._show(picture, len(together) - 1)

    def _restore(self, picture: Picture, request: gr.Request) -> Updates:
        """Set the tab to the request of a picture that was drawn here, with its init image."""
        updates, file = self.restorer.restore_picture(picture), picture.inputs.get("init.png")
        image = None if file is None else str(file)
        pipe = self._context.models.get(picture.model)
        shown = self._init_image.with_image(pipe, image, None, request, settings=False)
        return {**updates, **shown, self._notes: updates[self._notes] + shown[self._notes]}

    def show_from_history(self, request: gr.Request, event: gr.EventData) -> Updates:
        """Show the picture of the history that was clicked."""
        session = self._context.sessions.of(self._context.session_key(request))
        try:
            picture = self._find(session, str(getattr(event, "chosen", "")))
        except VinographError as error:
            return self._refuse({None: str(error)})
        if picture is None:
            return {self._shown: gr.skip()}
        return self._show(picture, len(session.of_request(picture)) - 1)

    def _find(self, session: Session, address: str) -> Picture | None:
        """The picture at an address: of the session, or of the gallery, copied into the session."""
        of_session = next((each for each in session.pictures if each.address == address), None)
        gallery, identifier = self._context.gallery, identifier_in(address)
        if of_session is not None or gallery is None or identifier is None:
            return of_session
        already = next((each for each in session.recalled if each.gallery == identifier), None)
        return already or session.recall(picture_of(self._context.models, gallery, gallery.get(identifier)))

    def add(self, values: Values, request: gr.Request) -> Updates:
        """Put what the controls say into the page's queue."""
        key = self._context.session_key(request)
        session = self._context.sessions.of(key)
        draw_requests: list[DrawRequest] | Updates = []
        try:
            draw_requests = self._draw_requests(values, session, request)
            if isinstance(draw_requests, dict):
                return self._refuse(draw_requests)
            self._context.sessions.enqueue(key, *draw_requests)
        except VinographError as error:
            for each in draw_requests:
                session.discard(each)
            return self._refuse({None: str(error)})
        return {**self._refuse({}), **self._queue.shown(session), self._stop: SHOWN}

    def follow(self, request: gr.Request) -> Iterator[Updates]:
        """Have the page's queue drawn, showing previews and pictures; only one call does at a time."""
        session = self._context.sessions.of(self._context.session_key(request))
        for queued, job in session.queue.follow():
            try:
                yield from self._follow(queued, job, session)
            except VinographError as error:  # such as no room on the disk for the picture
                yield self._fail(session, queued, str(error))
            finally:
                session.discard(queued.draw_request)
        yield {**self._queue.shown(session), self._stop: SHOWN if len(session.queue) else HIDDEN}

    def _follow(self, queued: QueuedRequest, job: Job, session: Session) -> Iterator[Updates]:
        """Show the job's previews, then its result or why there is none."""
        prompt, ahead = str(queued.draw_request.arguments["prompt"]), -1
        before = next(((each.address, each.size, each.prompt) for each in session.pictures), None)
        for status in job.follow():
            if not status.ended:
                rows = {} if status.place == ahead else self._queue.shown(session)
                ahead = status.place
                yield {self._output: fragments.unfinished(status, prompt, before), self._stop: SHOWN, **rows}
            elif status.results:
                added = session.add(self._context.models, queued.draw_request, status.results[0])
                yield {**self._show_all(added), **self._history(session)}
            elif status.error is not None:
                yield self._fail(session, queued, error_message(status.error))
            elif session.queue.draws(queued):
                yield {self._output: fragments.stopped(status, prompt)}
            else:  # it was taken out of the queue, or moved in it
                yield self._newest(session)

    def _fail(self, session: Session, queued: QueuedRequest, error: str) -> Updates:
        """Say why a request was not drawn: in the list where others follow, which change the notes."""
        if session.queue.state.waiting:
            session.queue.fail(queued, error)
            return {**self._newest(session), **self._queue.shown(session)}
        return {**self._newest(session), self._notes: fragments.notes(error, kind="error")}

    def _newest(self, session: Session) -> Updates:
        return self._show(session.pictures[0]) if session.pictures else {self._output: _EMPTY}

    def _history(self, session: Session) -> Updates:
        return {self._gallery: fragments.gallery(self._pictures(session))}

    def stop(self, request: gr.Request) -> str:
        """Stop what is drawn; the next request of the queue follows."""
        session = self._context.sessions.of(self._context.session_key(request))
        session.queue.stop()
        return self._queue.rendered(session)

    def keep(self, request: gr.Request) -> Updates:
        """Put the picture that was drawn live into the history."""
        session = self._context.sessions.of(self._context.session_key(request))
        picture, session.live.picture = session.live.picture, None
        if picture is None:
            return {self._live.keep: HIDDEN}
        (added,) = session.add(self._context.models, picture.draw_request, picture.result)
        return {**self._show(added), **self._history(session), self._live.keep: HIDDEN}

    def estimate(self, values: Values) -> str:
        """Say how long what the controls say will take, where that is known."""
        return self._estimate.of(values[self._model], self._controls, values, values[self.init_image] is not None)

    def _live_request(self, values: Values, session: Session, request: gr.Request) -> DrawRequest | Updates:
        """The request to draw live; or updates that say what is wrong with it."""
        own = {**values, self.init_image: (values[self.init_image] or {}).get("path")}
        draw_requests = self._draw_requests(own, session, request)
        if isinstance(draw_requests, dict):
            return self._refuse(draw_requests)
        return live_request(draw_requests[0], session.live.seed)

    def _draw_requests(self, values: Values, session: Session, request: gr.Request) -> list[DrawRequest] | Updates:
        """The requests that the controls describe; or errors in them, by the place to say them."""
        model = values[self._model]
        pipe = self._context.models.get(model)
        text = checked_prompt(values[self._prompt])
        prompts = prompts_of(text, MOST_QUEUED) if values[self._list] else [text]
        has_init_image = values[self.init_image] is not None and "image" in pipe.calls["generate"].takes
        arguments, errors = self._controls.read(pipe, values, init_image=has_init_image)
        if errors:
            return errors
        adaptation = adapt(pipe.model, adapter_choice.chosen(values[self._adapters]))  # says at once what doesn't fit
        initial = self._init_image.arguments(pipe, values, session, request)
        arguments = {**initial, **arguments}
        styled = [self._style.apply(values[self._style.dropdown], prompt, arguments) for prompt in prompts]
        return [DrawRequest(model, "generate", each, adaptation) for each in styled]

    def _refuse(self, errors: dict[Any, str]) -> Updates:
        """Say each error in its place, and empty the places without one."""
        places: dict[Any, Any] = {None: self._notes}
        places |= {note: note for note in (self._controls.size_note, self._controls.seed_note)}
        return {component: fragments.notes(errors.get(place, ""), kind="error") for place, component in places.items()}

    def _show_all(self, pictures: Sequence[Picture]) -> Updates:
        """Show the pictures of one request together; the snippets draw the first."""
        if len(pictures) == 1:
            return self._show(pictures[0])
        grid = viewing.even_grid(pictures, self._pipe_of(pictures[0]))
        return {**self._show(pictures[0]), self._output: grid}

    def _pipe_of(self, picture: Picture) -> Pipeline | None:
        """The model that drew a picture; None where it isn't offered, as of an old picture of the gallery."""
        offered = picture.model in self._context.models.references
        return self._context.models.get(picture.model) if offered else None

    def _show(self, picture: Picture, others: int = 0) -> Updates:
        """Show a finished picture with its facts, its links and its snippets.

        ``others`` of its request can be shown together with it.
        """
        return {
            self._output: viewing.alone(picture, self._pipe_of(picture), others),
            self._shown: picture,
            self._notes: viewing.warnings(picture),
            self._python: picture.python,
            self._shell: picture.shell,
        }
