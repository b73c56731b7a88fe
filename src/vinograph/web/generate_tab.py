"""The first tab: a prompt, the settings, and the picture with its previews."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from vinograph.adapters.adaptation import adapt
from vinograph.errors import RequestError, VinographError
from vinograph.pipeline import Pipeline
from vinograph.web import adapter_choice, fragments, viewing
from vinograph.web.controls import Controls, Updates, Values, checked_prompt
from vinograph.web.jobs import DrawRequest, Job, JobStatus, error_message
from vinograph.web.page_context import HIDDEN, SHOWN, PageContext, image_input, on
from vinograph.web.restore import RequestComponents, SettingsRestorer
from vinograph.web.sessions import Picture, Session, file_at

_EMPTY = fragments.placeholder("Your image will appear here.")
_MAX_EXAMPLES = 4
# Sends the value of a button that is clicked in a block of HTML.
_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[value]");
  if (button) trigger("click", { chosen: button.value });
});"""
# The same, and what the viewer's button says.
_OUTPUT_CLICKS = f"""{_CLICKS}
document.addEventListener("use-as-init-image", (event) => trigger("click", {{ chosen: "init " + event.detail }}));"""
_MASK_SIDE = 768  # pixels of the longer side; a mask needs no more
_HERE = Path(__file__).parent

_MASK_EDITOR = """
<div class="mask-editor"><div class="frame"><img src="${picture}" alt="The init image"><canvas></canvas></div>
<div class="tools"><label>Brush <input type="range" min="2" max="30" value="10"></label>
<button type="button">Clear</button></div></div>
"""


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
        self._shown = gr.State(None)  # the finished picture in the output
        self._mask_painted = gr.State(False)
        self.restorer = SettingsRestorer(
            context.models,
            self._controls,
            RequestComponents(self._model, self._prompt, self._adapters, self._init_image, self._notes),
        )
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
        with gr.Accordion("Init image", open=False, elem_id="init-image") as self._init_image_section:
            self._init_image = image_input("Image", 180)
            with gr.Column(visible=False) as self._mask_section:
                hint = "Inpainting: paint a mask over what is to change. Without a mask, the whole image changes."
                gr.HTML(fragments.notes(hint), elem_classes="notes")
                self._mask = gr.HTML(
                    "",
                    html_template=_MASK_EDITOR,
                    js_on_load=(_HERE / "mask_editor.js").read_text(encoding="utf-8"),
                    elem_id="mask",
                    picture="",
                )
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
        inputs = {self._model, self._prompt, self._init_image, self._mask, self._shown, self._adapters}
        inputs |= {*controls.inputs}
        outputs = [self._go, self._stop, self._output, self._notes, self._shown]
        outputs += [self._gallery, self._snippets, self._python, self._shell, controls.size_note, controls.seed_note]
        generating = on(self._go.click, self.generate, inputs, outputs)
        on(generating.failure, lambda: {self._go: SHOWN, self._stop: HIDDEN}, None, [self._go, self._stop])
        on(self._stop.click, self._context.stop, queue=False)
        for function, model_inputs, model_outputs in self.on_load:
            on(self._model.input, function, model_inputs, model_outputs)  # not where settings are restored
        for each in self._examples:
            on(each.click, lambda text: text, each, self._prompt, queue=False)
        on(controls.size_choice.change, controls.custom_size_update, controls.size_choice, controls.sides, queue=False)
        for side in (controls.width, controls.height):
            on(side.change, self.check_size, inputs, controls.size_note)
        for scale in controls.guidance:
            on(scale.change, self.change_guidance, [self._model, *controls.guidance], controls.negative_prompt)
        self._wire_init_image()
        shown = [self._output, self._shown, self._notes, self._python, self._shell]
        on(self._gallery.click, self.show_from_history, None, shown)

    def _wire_init_image(self) -> None:
        controls = self._controls
        outputs = [*controls.outputs, self._mask_section, self._mask, self._mask_painted, self._notes]
        outputs.append(self.restorer.restored_image)
        inputs = [self._model, self._init_image, controls.steps, self._shown, self.restorer.restored_image]
        on(self._init_image.change, self.change_init_image, inputs, outputs)
        inputs = [self._model, self._mask, self._mask_painted]
        on(self._mask.change, self.change_mask, inputs, [*controls.inputs, self._mask_painted])
        outputs = [*self._model_outputs, *self.restorer.outputs, self._output, self._shown, self._python, self._shell]
        on(self._output.click, self.act_on_picture, None, list(dict.fromkeys(outputs)))

    @property
    def on_load(self) -> list[tuple[Any, Any, list[Any]]]:
        """What runs when the page opens or the model changes: function, inputs and outputs."""
        inputs = [self._model, self._init_image, self._shown]
        return [(self.change_model, inputs, [*self._controls.outputs, *self._model_outputs])]

    @property
    def _model_outputs(self) -> list[Any]:
        return [*self._examples, self._init_image_section, self._mask_section, self._notes]

    def change_model(self, model: str, init_image: str | None, shown: Picture | None) -> Updates:
        """Set the controls for the model; the warnings of the picture that is ``shown`` stay."""
        pipe = self._context.models.get(model)
        takes = pipe.calls["generate"].takes
        examples = dict(zip(self._examples, self._context.models.examples(model), strict=False))
        return {
            **self._controls.for_model(pipe, init_image=init_image is not None and "image" in takes),
            **examples,
            self._init_image_section: gr.update(visible="image" in takes),
            self._mask_section: gr.update(visible=init_image is not None and "mask_image" in takes),
            self._notes: _warnings(shown),
        }

    def change_init_image(
        self,
        model: str,
        init_image: str | None,
        steps: int | None,
        shown: Picture | None,
        restored_image: str | None,
        request: gr.Request,
    ) -> Updates:
        """Show the controls that go with an init image, or hide them where it was taken away.

        With ``restored_image`` its request's settings were restored, and stay.
        """
        pipe = self._context.models.get(model)
        mask_background, refusal = "", ""
        if init_image is not None:
            try:
                picture = self._context.read_upload(request, init_image)
                picture.thumbnail((_MASK_SIDE, _MASK_SIDE))
                mask_background = fragments.data_url(picture)
            except RequestError as error:
                refusal = str(error)
        takes_mask = "mask_image" in pipe.calls["generate"].takes
        settings_stay = restored_image is not None and restored_image == (init_image or "")
        settings = {} if settings_stay else self._controls.with_init_image(pipe, bool(mask_background), steps or 1)
        return {
            **settings,
            self.restorer.restored_image: restored_image if settings_stay else None,
            self._mask_section: gr.update(visible=bool(mask_background) and takes_mask),
            self._mask: gr.update(value="", picture=mask_background),
            self._mask_painted: False,
            self._notes: fragments.notes(refusal, kind="error") + _warnings(shown),
        }

    def change_mask(self, model: str, mask: str, mask_painted: bool) -> Updates:
        """Set the defaults that go with a mask, only at its first stroke: later settings stay."""
        if not mask or mask_painted:
            return {self._mask_painted: bool(mask)}
        pipe = self._context.models.get(model)
        return {**self._controls.mask_defaults(pipe), self._mask_painted: True}

    def change_guidance(self, model: str, *scales: float) -> Any:
        """Show the negative prompt while guidance gives it an effect."""
        return self._controls.negative_prompt_update(self._context.models.get(model), scales)

    def check_size(self, values: Values) -> str:
        """Say what is wrong with a custom size while it is typed."""
        pipe = self._context.models.get(values[self._model])
        return fragments.notes(self._controls.size_error(pipe, values), kind="error")

    def restore(
        self, model: str, arguments: Mapping[str, Any], adapters: Mapping[str, float], init_image: str | None = None
    ) -> Updates:
        """Set the controls to an earlier request; see :meth:`SettingsRestorer.restore`."""
        updates = self.change_model(model, init_image, None)
        updates[self._init_image_section] |= {"open": init_image is not None}
        return updates | self.restorer.restore(model, arguments, adapters, init_image)

    def act_on_picture(self, request: gr.Request, event: gr.EventData) -> Updates:
        """Do what a button by a picture in the output, or in the viewer, says."""
        action, _, chosen = str(getattr(event, "chosen", "")).partition(" ")
        try:
            if action == "init":
                file = self._context.uploads.own_file(self._context.session_key(request).visitor, file_at(chosen))
                return {self._init_image: str(file), self._init_image_section: gr.update(open=True)}
            return self._act_on_history(action, chosen, self._context.sessions.of(self._context.session_key(request)))
        except VinographError as error:
            return {self._notes: fragments.notes(str(error), kind="error")}

    def _act_on_history(self, action: str, chosen: str, session: Session) -> Updates:
        picture = next((each for each in session.pictures if each.address == chosen), None)
        if picture is None:
            return {self._notes: fragments.notes("This picture is no longer in the history.", kind="error")}
        if action == "settings":
            image = picture.inputs.get("init.png")
            masked = {"mask_image": True} if "mask.png" in picture.inputs else {}
            return self.restore(
                picture.model, {**picture.arguments, **masked}, picture.adapters, None if image is None else str(image)
            )
        together = session.of_request(picture)
        return self._show_all(together) if action == "all" else self._show(picture, len(together) - 1)

    def show_from_history(self, request: gr.Request, event: gr.EventData) -> Updates:
        """Show the picture of the history that was clicked."""
        session = self._context.sessions.of(self._context.session_key(request))
        chosen = next((each for each in session.pictures if each.address == getattr(event, "chosen", None)), None)
        return {self._shown: gr.skip()} if chosen is None else self._show(chosen, len(session.of_request(chosen)) - 1)

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
                history = [(each.address, viewing.viewer_caption(each)) for each in session.pictures]
                done = {self._gallery: fragments.gallery(history), self._snippets: SHOWN}
                yield {**self._show_all(added), **done, self._go: SHOWN, self._stop: HIDDEN}
            else:
                yield {**self._without_result(status, prompt, last), self._go: SHOWN, self._stop: HIDDEN}

    def _draw_request(self, values: Values, session: Session, request: gr.Request) -> DrawRequest | dict[Any, str]:
        """The request that the controls describe; or errors in it, by the place to say them."""
        model = values[self._model]
        pipe = self._context.models.get(model)
        prompt = checked_prompt(values[self._prompt])
        has_init_image = values[self._init_image] is not None and "image" in pipe.calls["generate"].takes
        arguments, errors = self._controls.read(pipe, values, init_image=has_init_image)
        if errors:
            return errors
        adaptation = adapt(
            pipe.model, adapter_choice.chosen(values[self._adapters])
        )  # what doesn't fit is said at once
        files = self._input_files(pipe, values, session, request) if has_init_image else {}
        return DrawRequest(model, "generate", {"prompt": prompt, **files, **arguments}, adaptation)

    def _input_files(self, pipe: Pipeline, values: Values, session: Session, request: gr.Request) -> dict[str, str]:
        """Write the init image, and its mask where one is painted; their files by argument."""
        init_image = self._context.read_upload(request, values[self._init_image])
        has_mask = values[self._mask] and "mask_image" in pipe.calls["generate"].takes
        mask = _decode_mask(values[self._mask]).resize(init_image.size, Image.Resampling.NEAREST) if has_mask else None
        files = {"image": str(session.write(init_image, name="init.png"))}
        if mask is not None:
            files["mask_image"] = str(session.write(mask, name="mask.png"))
        return files

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

    def _show_all(self, pictures: Sequence[Picture]) -> Updates:
        """Show the pictures of one request together; the snippets draw the first."""
        if len(pictures) == 1:
            return self._show(pictures[0])
        grid = viewing.even_grid(pictures, self._context.models.get(pictures[0].model))
        return {**self._show(pictures[0]), self._output: grid}

    def _show(self, picture: Picture, others: int = 0) -> Updates:
        """Show a finished picture with its facts, its links and its snippets.

        ``others`` of its request can be shown together with it.
        """
        return {
            self._output: viewing.alone(picture, self._context.models.get(picture.model), others),
            self._shown: picture,
            self._notes: _warnings(picture),
            self._python: picture.python,
            self._shell: picture.shell,
        }


def _warnings(picture: Picture | None) -> str:
    """The warnings of the drawing that made the picture."""
    return "" if picture is None else fragments.notes(*picture.warnings)


def _decode_mask(mask: str) -> Image.Image:
    """The mask from the mask editor's value: white where it was painted, else black.

    Raises:
        RequestError: it is not a PNG, or larger than the editor's picture.
    """
    try:
        data = base64.b64decode(mask.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if max(picture.size) > _MASK_SIDE:
                raise RequestError(f"the mask is {picture.width}x{picture.height}; give at most {_MASK_SIDE} a side")
            painted = picture.convert("RGBA")
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError("the mask can't be read: it is not a PNG picture") from error
    return painted.getchannel("A").point(lambda value: 255 if value >= 128 else 0)
