"""The third tab: a picture is encoded to a model's latents and decoded again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from PIL import Image

from vinograph.errors import VinographError
from vinograph.images import READABLE, Size, read_picture, resize
from vinograph.web import fragments, viewing
from vinograph.web.controls import Updates
from vinograph.web.jobs import DrawRequest, Job, error_message
from vinograph.web.page_context import HIDDEN, SHOWN, PageContext, image_input, on
from vinograph.web.sessions import Picture, Session

_CALL = "reconstruct"
_GROUP = "reconstruct"
_EMPTY = fragments.placeholder("The original and its reconstruction will appear here.")


class ReconstructTab:
    """The layout of the tab, and what its controls do."""

    def __init__(self, context: PageContext) -> None:
        """Lay the tab out inside the Gradio block that is open."""
        self._context = context
        with gr.Column(elem_classes="columns"):
            with gr.Column(elem_classes="inputs"):
                self._model = context.model_dropdown()
                self._picture = image_input("Image to encode and decode", 260, elem_id="to-reconstruct")
                self._go = gr.Button("Reconstruct", variant="primary", elem_classes="go", elem_id="reconstruct")
                self._stop = gr.Button("Stop", variant="stop", visible=False)
                self._notes = gr.HTML(elem_classes="notes", elem_id="reconstruct-notes")
            with gr.Column(elem_classes="output"):
                self._output = gr.HTML(_EMPTY, elem_id="reconstructed")
        outputs = [self._go, self._stop, self._output, self._notes]
        on(self._go.click, self.reconstruct, [self._model, self._picture], outputs)
        on(self._stop.click, self._context.stop, queue=False)

    def reconstruct(self, model: str, picture: str | None, request: gr.Request) -> Iterator[Updates]:
        """Encode and decode the picture, and show what was lost."""
        if picture is None:
            yield {self._notes: fragments.notes("Give an image first.", kind="error")}
            return
        sessions, key = self._context.sessions, self._context.session_key(request)
        session = sessions.of(key)
        draw_request: DrawRequest | None = None
        try:
            self._context.models.get(model)
            original = session.write(self._context.read_upload(request, picture), name="original.png")
            draw_request = DrawRequest(model, _CALL, {"image": str(original)})
            job = sessions.begin(key, draw_request)
            yield {self._go: HIDDEN, self._stop: SHOWN, self._notes: ""}
            yield from self._follow(job, draw_request, session, original)
        except VinographError as error:
            yield {self._notes: fragments.notes(str(error), kind="error"), self._go: SHOWN, self._stop: HIDDEN}
        finally:
            if draw_request is not None:
                session.discard(draw_request)

    def _follow(self, job: Job, draw_request: DrawRequest, session: Session, original: Path) -> Iterator[Updates]:
        """Show the job's progress, then its result or why there is none."""
        for status in job.follow():
            if not status.ended:
                yield {self._output: fragments.unfinished(status)}
                continue
            done: Updates = {self._go: SHOWN, self._stop: HIDDEN, self._output: _EMPTY}
            if status.error is not None:
                done[self._notes] = fragments.notes(error_message(status.error), kind="error")
            for result in status.results:
                (picture,) = session.add(self._context.models, draw_request, result)
                done[self._output] = _comparison(
                    read_picture(original, formats=READABLE), picture, fragments.measures(result.report)
                )
                done[self._notes] = fragments.notes(*result.warnings)
            yield done


def _comparison(original: Image.Image, decoded: Picture, measures: str) -> str:
    """The original in the size that was encoded, the reconstruction, and both under a slider."""
    encoded = fragments.data_url(resize(original, Size(width=decoded.size[0], height=decoded.size[1])))
    link = fragments.download(decoded.address, "reconstruction.png", "Download PNG")
    caption = fragments.facts("Reconstruction", decoded.model, fragments.timings(decoded.timings))
    original_view = viewing.view_button(encoded, "The original", "Original", _GROUP)
    figures = viewing.framed(original_view, decoded.size, fragments.facts("Original"))
    figures += viewing.figure(decoded, caption, _GROUP, "The reconstruction")
    slider = fragments.slider(encoded, decoded.address, ("Original", "Reconstruction"), decoded.size)
    return f'<p class="measures">{measures}</p><div class="both">{figures}</div>{slider}<div class="links">{link}</div>'
