"""The page's choice of a model: a dropdown, and a list that says what each model is for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vinograph.errors import RequestError
from vinograph.web.controls import Updates
from vinograph.web.jobs import DrawRequest
from vinograph.web.model_list import model_list
from vinograph.web.page_context import CLICKS, PageContext, on
from vinograph.web.restoring import Restorer
from vinograph.web.sessions import Picture

_CALL = "generate"


class ModelChoice:
    """The dropdown, and under it the list, which is folded away at first."""

    def __init__(self, context: PageContext) -> None:
        """Lay both out inside the Gradio block that is open."""
        self._context = context
        self.dropdown = context.model_dropdown()
        with gr.Accordion("About the models", open=False, elem_id="about-models"):
            self.list = gr.HTML(js_on_load=CLICKS, elem_id="models")

    def wire(self, restorer: Restorer, drawn: Any) -> None:
        """Choose a model from the list; after a picture was ``drawn``, say how long its model takes."""
        self._restorer = restorer
        restorer.then_remember(on(self.list.click, self.choose, restorer.state, restorer.outputs))
        on(drawn, self.rendered, None, self.list)

    def rendered(self) -> str:
        """The list as HTML."""
        return model_list(self._context.models, self._seconds)

    def choose(self, _: str, init_image: str | None, shown: Picture | None, event: gr.EventData) -> Updates:
        """Choose the model of the row whose button was clicked, with its defaults.

        Raises:
            RequestError: there is no such model.
        """
        chosen = getattr(event, "chosen", None)
        if chosen not in self._context.models.references:
            raise RequestError("choose a model")
        return self._restorer.change_model(str(chosen), init_image, shown, None)

    def _seconds(self, reference: str) -> float | None:
        """The seconds of a picture with the model's defaults, from this server's own drawings."""
        takes = self._context.models.get(reference).calls[_CALL].takes
        expected = self._context.sessions.estimates.of(DrawRequest(reference, _CALL, {}), takes)
        return None if expected is None else expected.seconds
