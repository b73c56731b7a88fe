"""The page's switch for live drawing, and the button that keeps what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from vinograph.errors import RequestError, VinographError
from vinograph.pipeline import Pipeline
from vinograph.web import fragments
from vinograph.web.jobs import DrawRequest, error_message
from vinograph.web.live import LivePicture, is_quick
from vinograph.web.page_context import HIDDEN, SHOWN, PageContext, on
from vinograph.web.sessions import Session

_HERE = Path(__file__).parent
_MOST_STEPS = 20
Updates = dict[Any, Any]
MakeRequest = Callable[[Mapping[Any, Any], Session, gr.Request], DrawRequest | Updates]
"""The request that the controls describe, or updates that say what is wrong."""

NOTIFY = "() => { document.dispatchEvent(new Event('vinograph-settings')); }"
"""Script for controls that change: the live drawing then begins after a short pause."""


class LivePanel:
    """The switch, the button, and a line that says what it waits for."""

    def __init__(self, context: PageContext) -> None:
        """Lay the switch out inside the Gradio block that is open."""
        self._context = context
        self.switch = gr.Checkbox(label="Live", info="Draws while you type.", visible=False, elem_id="live")

    def lay_out_keep(self) -> None:
        """Lay out the button and the line, below the button that draws."""
        script = (_HERE / "live.js").read_text(encoding="utf-8")
        self._pulse = gr.HTML("", elem_id="live-pulse", js_on_load=script)  # no output: a change of it draws
        self._state = gr.HTML("", elem_id="live-state", elem_classes="estimate")
        self.keep = gr.Button("Keep this image", visible=False, elem_id="keep")

    @property
    def outputs(self) -> list[Any]:
        """What live drawing changes, beside the output and the notes."""
        return [self._state, self.keep]

    def for_model(self, pipe: Pipeline) -> Updates:
        """Show the switch for a model that is quick enough, else turn it off."""
        return {self.switch: gr.update(visible=True) if is_quick(pipe) else gr.update(visible=False, value=False)}

    def wire(self, inputs: set[Any], outputs: list[Any], make: MakeRequest, output: Any, notes: Any) -> Any:
        """Draw when something changed, into ``output``; ``inputs`` are all that a request is made of."""
        self._make, self._output, self._notes = make, output, notes
        now = {"trigger_mode": "multiple", "preprocess": False}  # what doesn't fit is said in the notes
        drawing = on(self._pulse.change, self.draw, {*inputs, self.switch}, [*outputs, *self.outputs], **now)
        on(self.switch.change, self.turn, self.switch, self.outputs)
        return drawing

    def turn(self, is_on: bool, request: gr.Request) -> Updates:
        """Stop drawing live where the switch was turned off."""
        if not is_on:
            self._session(request).live.stop()
        return {self._state: "", self.keep: HIDDEN}

    def _session(self, request: gr.Request) -> Session:
        return self._context.sessions.of(self._context.session_key(request))

    def draw(self, values: Mapping[Any, Any], request: gr.Request) -> Iterator[Updates]:
        """Draw what the controls say now, unless they say something else meanwhile."""
        session = self._session(request)
        if not values[self.switch]:
            return
        ticket = session.live.begin()
        draw_request: DrawRequest | Updates | None = None
        try:
            draw_request = self._make(values, session, request)
            if isinstance(draw_request, DrawRequest):
                yield from self._follow(session, ticket, draw_request)
            else:
                yield draw_request
        except VinographError as error:
            yield {self._notes: fragments.notes(str(error), kind="error")}
        finally:
            if isinstance(draw_request, DrawRequest):
                session.discard(draw_request)

    def _follow(self, session: Session, ticket: object, draw_request: DrawRequest) -> Iterator[Updates]:
        waited = False
        for status in session.live.draw(ticket, draw_request):
            if status.error is not None:
                yield {self._notes: fragments.notes(error_message(status.error), kind="error"), self._state: ""}
            elif status.results:
                yield {**self._shown(LivePicture(draw_request, status.results[0])), self._state: "", self.keep: SHOWN}
            elif status.place or waited:
                waited = status.place > 0
                yield {self._state: f"<p>{fragments.place(status.place)}</p>" if waited else ""}

    def _shown(self, picture: LivePicture) -> Updates:
        """Show a picture that is in no history."""
        image, result = picture.result.images[0], picture.result
        seed = "" if result.seeds is None else f"Seed {result.seeds[0]}"
        facts = fragments.facts(
            "Live", seed, f"{image.width}×{image.height}", picture.draw_request.model, fragments.timings(result.timings)
        )
        prompt = str(picture.draw_request.arguments["prompt"])
        return {
            self._output: fragments.figure(fragments.data_url(image), image.size, prompt, facts),
            self._notes: fragments.notes(*result.warnings),
        }


def live_request(draw_request: DrawRequest, seed: int) -> DrawRequest:
    """One picture of a request, from its seed, or the page's own where it has none.

    Raises:
        RequestError: it takes too many steps to be drawn while somebody types.
    """
    steps = [value for name, value in draw_request.arguments.items() if name.endswith("_steps")]
    if any(each > _MOST_STEPS for each in steps):
        raise RequestError(f"Live draws at most {_MOST_STEPS} steps; press Generate for {max(steps)}")
    arguments = {"seed": seed, **draw_request.arguments, "num_images_per_prompt": 1}
    return DrawRequest(draw_request.model, draw_request.call, arguments, draw_request.adaptation)
