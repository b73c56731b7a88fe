"""The third tab: a picture to what a model keeps of it, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from PIL import Image

from vinograph.errors import VinographError
from vinograph.images import Size, read_picture, resize
from vinograph.web import fragments
from vinograph.web.controls import Updates
from vinograph.web.drawing import Job, Order, said
from vinograph.web.studio import HIDDEN, SHOWN, Studio, on, upload
from vinograph.web.visits import Picture, Visit

_CALL = "reconstruct"
_EMPTY = fragments.empty("The picture and its reconstruction will stand here.")


class ReconstructTab:
    """The layout of the tab, and what its controls do."""

    def __init__(self, studio: Studio) -> None:
        """Lay it out, where the layout under way is."""
        self._studio = studio
        with gr.Column(elem_classes="desk"):
            with gr.Column(elem_classes="ask"):
                self._model = studio.choice()
                self._picture = upload("Picture to encode and decode", 260, elem_id="to-reconstruct")
                self._go = gr.Button("Reconstruct", variant="primary", elem_classes="go", elem_id="reconstruct")
                self._stop = gr.Button("Stop", variant="stop", visible=False)
                self._notes = gr.HTML(elem_classes="notes", elem_id="reconstruct-notes")
            with gr.Column(elem_classes="picture"):
                self._easel = gr.HTML(_EMPTY, elem_id="reconstructed")
        outputs = [self._go, self._stop, self._easel, self._notes]
        on(self._go.click, self.reconstruct, [self._model, self._picture], outputs)
        on(self._stop.click, self._studio.stop, queue=False)

    def reconstruct(self, model: str, picture: str | None, request: gr.Request) -> Iterator[Updates]:
        """Encode and decode the picture, and say what that cost."""
        if picture is None:
            yield {self._notes: fragments.notes("Give a picture first.", kind="refused")}
            return
        visits, who = self._studio.visits, self._studio.who(request)
        visit = visits.of(who)
        order: Order | None = None
        try:
            self._studio.models.look_at(model)
            original = visit.write(self._studio.read(request, picture), name="start.png")
            order = Order(model, _CALL, {"image": str(original)})
            job = visits.begin(who, order)
            yield {self._go: HIDDEN, self._stop: SHOWN, self._notes: ""}
            yield from self._follow(job, order, visit, original)
        except VinographError as error:
            refused = fragments.notes(str(error), kind="refused")
            yield {self._notes: refused, self._go: SHOWN, self._stop: HIDDEN}
        finally:
            if order is not None:
                visit.discard(order)

    def _follow(self, job: Job, order: Order, visit: Visit, original: Path) -> Iterator[Updates]:
        """Show how far it is, and what became of it."""
        for news in job.follow():
            if not news.ended:
                yield {self._easel: fragments.waiting(news)}
                continue
            done: Updates = {self._go: SHOWN, self._stop: HIDDEN, self._easel: _EMPTY}
            if news.error is not None:
                done[self._notes] = fragments.notes(said(news.error), kind="refused")
            for result in news.results:
                (drawn,) = visit.keep(self._studio.models, order, result)
                done[self._easel] = _beside_the_original(
                    read_picture(original), drawn, fragments.measures(result.report)
                )
                done[self._notes] = fragments.notes(*result.warnings)
            yield done


def _beside_the_original(original: Image.Image, drawn: Picture, measures: str) -> str:
    """The original at the size that the model saw, the reconstruction, and both under a slider."""
    before = fragments.inlined(resize(original, Size(width=drawn.size[0], height=drawn.size[1])))
    link = fragments.download(drawn.address, "reconstruction.png", "Download PNG")
    told = fragments.facts("Reconstruction", drawn.model, fragments.timings(drawn.timings))
    figures = fragments.easel(before, drawn.size, "The original", fragments.facts("Original"))
    figures += fragments.easel(drawn.address, drawn.size, "The reconstruction", told)
    slider = fragments.slider(before, drawn.address, ("Original", "Reconstruction"), drawn.size)
    return f'<p class="measures">{measures}</p><div class="both">{figures}</div>{slider}<div class="links">{link}</div>'
