"""The first tab: a prompt, a button, and the picture as it forms."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from vinograph.errors import RequestError, VinographError
from vinograph.pipeline import Pipeline
from vinograph.web import fragments
from vinograph.web.controls import Controls, Updates, Values, checked_prompt
from vinograph.web.drawing import Job, News, Order, said
from vinograph.web.studio import HIDDEN, SHOWN, Studio, on, upload
from vinograph.web.visits import Picture, Visit, address

_EMPTY = fragments.empty("Your picture will form here.")
_EXAMPLES = 4
_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { chosen: button.value });
});"""
_PAINTED_ON = 768  # pixels of the longer side; a mask needs no more
_HERE = Path(__file__).parent

_PAINTER = """
<div class="painter"><div class="paper"><img src="${picture}" alt="The picture to paint on"><canvas></canvas></div>
<div class="tools"><label>Brush <input type="range" min="2" max="30" value="10"></label>
<button type="button">Clear</button></div></div>
"""


class DrawTab:
    """The layout of the tab, and what its controls do."""

    def __init__(self, studio: Studio) -> None:
        """Lay it out, where the layout under way is."""
        self._studio = studio
        with gr.Column(elem_classes="desk"):
            with gr.Column(elem_classes="ask"):
                self._lay_out_ask()
            with gr.Column(elem_classes="picture"):
                self._easel = gr.HTML(_EMPTY, elem_id="easel", js_on_load=_CLICKS)
            with gr.Column(elem_classes="settings"):
                self._lay_out_settings()
            with gr.Column(elem_classes="visit"):
                self._lay_out_visit()
        self._shown = gr.State(None)
        self._painting = gr.State(False)
        self._wire()

    def _lay_out_ask(self) -> None:
        self._model = self._studio.choice()
        self._prompt = gr.Textbox(
            label="What to draw", lines=3, max_lines=8, autofocus=True, elem_id="prompt", placeholder="a red house …"
        )
        self._go = gr.Button("Draw", variant="primary", elem_classes="go", elem_id="draw")
        self._stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        self._notes = gr.HTML(elem_classes="notes", elem_id="notes")
        with gr.Row(elem_classes="examples"):
            texts = self._studio.models.examples(self._model.value)
            self._examples = [gr.Button(text, size="sm") for text in texts[:_EXAMPLES]]

    def _lay_out_settings(self) -> None:
        with gr.Accordion("Start from a picture", open=False, elem_id="original") as self._original:
            self._picture = upload("Picture", 180)
            with gr.Column(visible=False) as self._masking:
                gr.HTML(
                    fragments.notes("Paint over what to draw anew; without paint, all of it is."), elem_classes="notes"
                )
                self._mask = gr.HTML(
                    "",
                    html_template=_PAINTER,
                    js_on_load=(_HERE / "painter.js").read_text(encoding="utf-8"),
                    elem_id="mask",
                    picture="",
                )
        self._controls = Controls()

    def _lay_out_visit(self) -> None:
        self._gallery = gr.HTML(fragments.gallery([]), elem_id="visit", js_on_load=_CLICKS)
        with gr.Accordion("Draw it again, by Python or shell", open=False, visible=False) as self._again:
            self._python = gr.Textbox(
                label="Python", lines=4, interactive=False, buttons=["copy"], elem_classes="lines", elem_id="python"
            )
            self._shell = gr.Textbox(
                label="Shell", lines=2, interactive=False, buttons=["copy"], elem_classes="lines", elem_id="shell"
            )

    def _wire(self) -> None:
        controls = self._controls
        inputs = {self._model, self._prompt, self._picture, self._mask, self._shown, *controls.inputs}
        drawn = [self._go, self._stop, self._easel, self._notes, self._shown]
        drawn += [self._gallery, self._again, self._python, self._shell, controls.size_note, controls.seed_note]
        drawing = on(self._go.click, self.draw, inputs, drawn)
        on(drawing.failure, lambda: {self._go: SHOWN, self._stop: HIDDEN}, None, [self._go, self._stop])
        on(self._stop.click, self._studio.stop, queue=False)
        on(self._model.change, self.choose, [self._model, self._picture, self._shown], self.followers)
        for each in self._examples:
            on(each.click, lambda text: text, each, self._prompt, queue=False)
        on(controls.shape.change, controls.sides_for, controls.shape, controls.sides, queue=False)
        for side in (controls.width, controls.height):
            on(side.change, self.check_size, inputs, controls.size_note)
        for scale in controls.guidance:
            on(scale.change, self.guide, [self._model, *controls.guidance], controls.negative_prompt)
        with_picture = [*controls.outputs, self._masking, self._mask, self._painting, self._notes]
        given = [self._model, self._picture, controls.steps, self._shown]
        on(self._picture.change, self.start_from, given, with_picture)
        on(self._mask.change, self.paint, [self._model, self._mask, self._painting], [*controls.inputs, self._painting])
        on(self._easel.click, self.use, self._shown, [self._picture, self._original])
        shown = [self._easel, self._shown, self._notes, self._python, self._shell]
        on(self._gallery.click, self.show_again, None, shown)

    @property
    def model(self) -> Any:
        """The control that says which model is chosen."""
        return self._model

    @property
    def picture(self) -> Any:
        """The control that holds the picture to start from."""
        return self._picture

    @property
    def shown(self) -> Any:
        """What holds the finished picture that stands on the easel."""
        return self._shown

    @property
    def followers(self) -> list[Any]:
        """What follows the model."""
        return [*self._controls.outputs, *self._examples, self._original, self._masking, self._notes]

    def choose(self, model: str, picture: str | None, shown: Picture | None) -> Updates:
        """Let everything follow the chosen model. What was said about the picture that is ``shown`` stays."""
        pipe = self._studio.models.look_at(model)
        takes = pipe.calls["generate"].takes
        examples = dict(zip(self._examples, self._studio.models.examples(model), strict=False))
        return {
            **self._controls.follow(pipe, picture=picture is not None and "image" in takes),
            **examples,
            self._original: gr.update(visible="image" in takes),
            self._masking: gr.update(visible=picture is not None and "mask_image" in takes),
            self._notes: _warnings(shown),
        }

    def start_from(
        self, model: str, picture: str | None, steps: int | None, shown: Picture | None, request: gr.Request
    ) -> Updates:
        """A picture to start from was given, or taken away."""
        pipe = self._studio.models.look_at(model)
        painted_on, refusal = "", ""
        if picture is not None:
            try:
                opened = self._studio.read(request, picture)
                opened.thumbnail((_PAINTED_ON, _PAINTED_ON))
                painted_on = fragments.inlined(opened)
            except RequestError as error:
                refusal = str(error)
        masks = painted_on and "mask_image" in pipe.calls["generate"].takes
        return {
            **self._controls.with_picture(pipe, bool(painted_on), steps or 1),
            self._masking: gr.update(visible=bool(masks)),
            self._mask: gr.update(value="", picture=painted_on),
            self._painting: False,
            self._notes: fragments.notes(refusal, kind="refused") + _warnings(shown),
        }

    def paint(self, model: str, mask: str, painting: bool) -> Updates:
        """The first stroke brings the settings that go with a mask."""
        if not mask or painting:
            return {self._painting: bool(mask)}
        pipe = self._studio.models.look_at(model)
        return {**self._controls.beside_mask(pipe), self._painting: True}

    def guide(self, model: str, *scales: float) -> Any:
        """A guidance scale was set."""
        return self._controls.guided(self._studio.models.look_at(model), scales)

    def check_size(self, values: Values) -> str:
        """A side was set."""
        pipe = self._studio.models.look_at(values[self._model])
        return fragments.notes(self._controls.size_refused(pipe, values), kind="refused")

    def use(self, shown: Picture | None) -> Updates:
        """Start from the picture that is shown."""
        return {self._picture: str(shown.file) if shown else None, self._original: gr.update(open=True)}

    def show_again(self, request: gr.Request, event: gr.EventData) -> Updates:
        """A picture of this visit was chosen."""
        pictures = self._studio.visits.of(self._studio.who(request)).pictures
        chosen = getattr(event, "chosen", None)
        return next((self._show(each) for each in pictures if each.address == chosen), {self._shown: gr.skip()})

    def draw(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Draw what the page asks for, showing it as it forms."""
        visits, who = self._studio.visits, self._studio.who(request)
        visit = visits.of(who)
        order: Order | dict[Any, str] | None = None
        try:
            order = self._order(values, visit, request)
            if isinstance(order, dict):
                yield self._refuse(order)
                return
            job = visits.begin(who, order)
            yield {self._go: HIDDEN, self._stop: SHOWN, **self._refuse({})}
            yield from self._follow(job, order, visit, values[self._shown])
        except VinographError as error:
            yield {**self._refuse({None: str(error)}), self._go: SHOWN, self._stop: HIDDEN}
        finally:
            if isinstance(order, Order):
                visit.discard(order)

    def _follow(self, job: Job, order: Order, visit: Visit, last: Picture | None) -> Iterator[Updates]:
        """Show the drawing as it forms, and what became of it."""
        about = str(order.arguments["prompt"])
        for news in job.follow():
            if not news.ended:
                yield {self._easel: fragments.waiting(news, about)}
            elif news.results:
                drawn = visit.keep(self._studio.models, order, news.results[0])
                pictures = [(each.address, each.prompt) for each in visit.pictures]
                done = {self._gallery: fragments.gallery(pictures), self._again: SHOWN}
                yield {**self._show(drawn[0]), **done, self._go: SHOWN, self._stop: HIDDEN}
            else:
                yield {**self._not_drawn(news, about, last), self._go: SHOWN, self._stop: HIDDEN}

    def _order(self, values: Values, visit: Visit, request: gr.Request) -> Order | dict[Any, str]:
        """What the page asks for; or what is wrong with it, by the place to say so."""
        model = values[self._model]
        pipe = self._studio.models.look_at(model)
        prompt = checked_prompt(values[self._prompt])
        from_picture = values[self._picture] is not None and "image" in pipe.calls["generate"].takes
        told, refused = self._controls.read(pipe, values, picture=from_picture)
        if refused:
            return refused
        original = self._originals(pipe, values, visit, request) if from_picture else {}
        return Order(model, "generate", {"prompt": prompt, **original, **told})

    def _originals(self, pipe: Pipeline, values: Values, visit: Visit, request: gr.Request) -> dict[str, str]:
        """The files of the picture to start from and of its mask, where one is painted."""
        picture = self._studio.read(request, values[self._picture])
        masked = values[self._mask] and "mask_image" in pipe.calls["generate"].takes
        mask = _painted(values[self._mask]).resize(picture.size, Image.Resampling.NEAREST) if masked else None
        files = {"image": str(visit.write(picture, name="start.png"))}
        if mask is not None:
            files["mask_image"] = str(visit.write(mask, name="mask.png"))
        return files

    def _refuse(self, refused: dict[Any, str]) -> Updates:
        """Say what is wrong, in its place; where nothing is, nothing."""
        said_under_the_prompt = fragments.notes(refused.get(None, ""), kind="refused")
        places = (self._controls.size_note, self._controls.seed_note)
        beside = {place: fragments.notes(refused.get(place, ""), kind="refused") for place in places}
        return {self._notes: said_under_the_prompt, **beside}

    def _not_drawn(self, news: News, about: str, last: Picture | None) -> Updates:
        """A drawing was stopped, or failed; then the ``last`` picture that was shown is back."""
        if news.error is not None:
            before = {self._easel: _EMPTY} if last is None else self._show(last)
            return {**before, self._notes: fragments.notes(said(news.error), kind="refused")}
        after = "" if news.step is None else f" after {news.step.stage} {news.step.index} of {news.step.total}"
        below = fragments.facts(f"Stopped{after}")
        if news.preview is None:
            return {self._easel: fragments.empty(f"Stopped{after}.")}
        return {self._easel: fragments.easel(fragments.inlined(news.preview), news.preview.size, about, below)}

    def _show(self, picture: Picture) -> Updates:
        """Show a finished picture, and what there is to say about it."""
        seed = "" if picture.seed is None else f"Seed {picture.seed}"
        size = f"{picture.size[0]}×{picture.size[1]}"
        links = [fragments.download(picture.address, picture.name, "Download PNG")]
        links += [fragments.download(address(file), name, name) for name, file in picture.beside.items()]
        if "image" in self._takes(picture.model):
            links.append(fragments.button("Start from this picture", picture.address))
        below = fragments.facts(seed, size, picture.model, fragments.timings(picture.timings))
        below += f'<div class="links">{"".join(links)}</div>'
        return {
            self._easel: fragments.easel(picture.address, picture.size, picture.prompt, below),
            self._shown: picture,
            self._notes: _warnings(picture),
            self._python: picture.python,
            self._shell: picture.shell,
        }

    def _takes(self, model: str) -> Any:
        return self._studio.models.look_at(model).calls["generate"].takes


def _warnings(picture: Picture | None) -> str:
    """What was said when the picture was drawn."""
    return "" if picture is None else fragments.notes(*picture.warnings)


def _painted(mask: str) -> Image.Image:
    """The picture, white where it was painted, that the painter's value holds.

    Raises:
        RequestError: it is not a PNG, or larger than what was painted on.
    """
    try:
        data = base64.b64decode(mask.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if max(picture.size) > _PAINTED_ON:
                raise RequestError(f"the mask is {picture.width}x{picture.height}; give at most {_PAINTED_ON} a side")
            painted = picture.convert("RGBA")
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError("the mask can't be read: it is not a PNG picture") from error
    return painted.getchannel("A").point(lambda value: 255 if value >= 128 else 0)
