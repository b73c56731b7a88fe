"""The line below the button that draws: how long that will take."""

from __future__ import annotations

import gradio as gr

from vinograph.errors import VinographError
from vinograph.web import fragments
from vinograph.web.controls import Controls, Values
from vinograph.web.jobs import DrawRequest
from vinograph.web.page_context import PageContext

_CALL = "generate"


class EstimateLine:
    """The line as a component, empty where the time isn't known."""

    def __init__(self, context: PageContext) -> None:
        """Lay the line out inside the Gradio block that is open."""
        self._context = context
        self.line = gr.HTML(elem_classes="estimate", elem_id="estimate")

    def of(self, model: str, controls: Controls, values: Values, init_image: bool) -> str:
        """What the line says of a request of ``model`` as the controls describe it."""
        try:
            pipe = self._context.models.get(model)
            arguments, errors = controls.read(pipe, values, init_image=init_image)
        except VinographError:  # it is said where the request is made
            return ""
        if errors:
            return ""
        if init_image:
            arguments["image"] = "init.png"
        draw_request = DrawRequest(model, _CALL, arguments)
        expected = self._context.sessions.estimates.of(draw_request, pipe.calls[_CALL].takes)
        return "" if expected is None else fragments.estimate(expected.seconds, expected.prepares)
