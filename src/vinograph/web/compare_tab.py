"""The second tab: two models or two settings, the same prompt and seed, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from vinograph.arguments import check_seed
from vinograph.errors import RequestError, VinographError
from vinograph.images import resize
from vinograph.web import fragments
from vinograph.web.controls import Controls, Updates, Values, checked_prompt, new_seed, typed_seed
from vinograph.web.drawing import Job, Order, said
from vinograph.web.studio import HIDDEN, SHOWN, Studio, on
from vinograph.web.visits import Picture, Visit

_NAMES = ("A", "B")
_EMPTY = fragments.empty("Two pictures will form here.")


class CompareTab:
    """The layout of the tab, and what its controls do."""

    def __init__(self, studio: Studio) -> None:
        """Lay it out, where the layout under way is."""
        self._studio = studio
        with gr.Column(elem_classes="desk"):
            with gr.Column(elem_classes="ask"):
                example = studio.models.examples(studio.models.references[0])[0]
                self._prompt = gr.Textbox(example, label="What to draw with both", lines=3, max_lines=8)
                self._seed = gr.Textbox(label="Seed of both", placeholder="a new one each time", max_lines=1)
                self._go = gr.Button("Draw both", variant="primary", elem_classes="go", elem_id="compare")
                self._stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-comparing")
                self._notes = gr.HTML(elem_classes="notes", elem_id="compare-notes")
            with gr.Column(elem_classes="picture"):
                self._easel = gr.HTML(_EMPTY, elem_id="compared")
            with gr.Column(elem_classes="settings"):
                self._sides = [self._lay_out_side(index) for index in range(len(_NAMES))]
        self._wire()

    def _lay_out_side(self, index: int) -> tuple[Any, Controls]:
        with gr.Accordion(_NAMES[index], elem_id=f"side-{_NAMES[index].lower()}"):
            return self._studio.choice(chosen=index), Controls(several=False)

    def _wire(self) -> None:
        controls = [controls for _, controls in self._sides]
        inputs = {self._prompt, self._seed, *(model for model, _ in self._sides)}
        inputs |= {each for side in controls for each in side.inputs}
        outputs = [self._go, self._stop, self._easel, self._notes, self._seed, *(side.size_note for side in controls)]
        on(self._go.click, self.draw, inputs, outputs)
        on(self._stop.click, self._studio.stop, queue=False)
        for model, side in self._sides:
            follow = self._follower(side)
            on(model.change, follow, model, side.outputs)
            on(side.shape.change, side.sides_for, side.shape, side.sides, queue=False)
            for scale in side.guidance:
                on(scale.change, self._guide(side), [model, *side.guidance], side.negative_prompt)

    @property
    def follow(self) -> list[tuple[Any, Any, list[Any]]]:
        """What has to be done when the page opens: function, input and outputs."""
        return [(self._follower(side), model, side.outputs) for model, side in self._sides]

    def _follower(self, side: Controls) -> Any:
        return lambda model: side.follow(self._studio.models.look_at(model))

    def _guide(self, side: Controls) -> Any:
        return lambda model, *scales: side.guided(self._studio.models.look_at(model), scales)

    def draw(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Draw both in one turn, showing them as they form."""
        visits, who = self._studio.visits, self._studio.who(request)
        try:
            orders, refused = self._orders(values)
            if refused:
                yield self._refuse(refused)
                return
            job = visits.begin(who, *orders)
            yield {self._go: HIDDEN, self._stop: SHOWN, **self._refuse({}), self._easel: _EMPTY}
            yield from self._follow(job, orders, visits.of(who))
        except VinographError as error:
            yield {**self._refuse({None: str(error)}), self._go: SHOWN, self._stop: HIDDEN}

    def _follow(self, job: Job, orders: list[Order], visit: Visit) -> Iterator[Updates]:
        """Show both as they form, and what became of them."""
        drawn: list[Picture] = []
        for news in job.follow():
            for order, result in list(zip(orders, news.results, strict=False))[len(drawn) :]:
                drawn += visit.keep(self._studio.models, order, result)
            yield {self._easel: _side_by_side(orders, drawn, fragments.progress(news), fragments.forming(news))}
            if news.ended:
                warnings = [text for result in news.results for text in result.warnings]
                if news.error is not None:
                    warnings.append(said(news.error))
                yield {
                    self._easel: _side_by_side(orders, drawn) + (_under_a_slider(drawn) if len(drawn) > 1 else ""),
                    self._notes: fragments.notes(*dict.fromkeys(warnings)),
                    self._go: SHOWN,
                    self._stop: HIDDEN,
                }

    def _orders(self, values: Values) -> tuple[list[Order], dict[Any, str]]:
        refused: dict[Any, str] = {}
        seed = typed_seed(values[self._seed] or new_seed())
        try:
            check_seed("Seed", seed)
        except RequestError as error:
            refused[None] = str(error)
        prompt = checked_prompt(values[self._prompt])
        orders = []
        for model, side in self._sides:
            told, wrong = side.read(self._studio.models.look_at(values[model]), values)
            orders.append(Order(values[model], "generate", {"prompt": prompt, **told, "seed": seed}))
            refused |= wrong
        return orders, refused

    def _refuse(self, refused: dict[Any, str]) -> Updates:
        """Say what is wrong, in its place; where nothing is, nothing."""
        places = [side.size_note for _, side in self._sides]
        beside = {place: fragments.notes(refused.get(place, ""), kind="refused") for place in places}
        return {self._notes: fragments.notes(refused.get(None, ""), kind="refused"), **beside}


def _side_by_side(orders: list[Order], drawn: list[Picture], progress: str = "", forming: str = "") -> str:
    """The pictures that are there, the one that forms, and places for the others."""
    figures = []
    for index, order in enumerate(orders):
        title = fragments.facts(f"{_NAMES[index]}: {order.model}")
        if index < len(drawn):
            picture = drawn[index]
            told = title + fragments.facts(f"Seed {picture.seed}", fragments.timings(picture.timings))
            figures.append(fragments.easel(picture.address, picture.size, f"{_NAMES[index]}: {picture.prompt}", told))
        else:
            under_way = index == len(drawn)
            figures.append(fragments.easel(forming if under_way else "", (1, 1), f"{_NAMES[index]}, forming", title))
    return f'<div class="both">{"".join(figures)}</div>{progress}'


def _under_a_slider(drawn: list[Picture]) -> str:
    one, two = drawn
    right = two.address
    if one.size != two.size:
        with Image.open(two.file) as picture:
            right = fragments.inlined(resize(picture.convert("RGB"), *one.size))
    names = [f"{name}: {each.model}" for name, each in zip(_NAMES, drawn, strict=True)]
    return fragments.slider(one.address, right, names, one.size)
