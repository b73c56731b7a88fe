"""The settings of a drawing as controls: made from what the families take, and set from what the chosen model does.

No family is known here by name. There is a control for each option that any family has, as on the command line; those
that the chosen model doesn't take are hidden. Every value is checked by the schema of requests.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import gradio as gr

from vinograph.arguments import VAES, check_size, check_texts
from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.families.autoencoder import autoencoders
from vinograph.pipeline import Pipeline
from vinograph.request import OPTIONS, Request, arguments_of, fewest_steps

Values = Mapping[Any, Any]
Updates = dict[Any, Any]

LIKE_THE_PICTURE = "like the picture"
_OTHER = "other"
_CALL = "generate"
_MOST_AT_ONCE = 8
_LONGEST_SEED = 20  # digits

_LABELS = {"vae": "VAE", "count": "Pictures", "negative_prompt": "Keep away from"}
_SHAPES: Mapping[str, Fraction] = {
    "Square": Fraction(1),
    "Landscape 4:3": Fraction(4, 3),
    "Landscape 3:2": Fraction(3, 2),
    "Wide 16:9": Fraction(16, 9),
    "Panorama 2:1": Fraction(2),
    "Portrait 3:4": Fraction(3, 4),
    "Portrait 2:3": Fraction(2, 3),
    "Tall 9:16": Fraction(9, 16),
    "Banner 1:2": Fraction(1, 2),
}
_NEAR_ENOUGH = 0.04  # of the ratio that a name says
_LARGEST_AREA = 2.0  # of the model's native one


def new_seed() -> str:
    """A seed that nobody chose, as text: a browser's numbers are too short for the longest."""
    return str(secrets.randbits(32))


def typed_seed(text: Any) -> Any:
    """The number that was typed. What is none, or far too long, stays a text, which the check of a seed refuses."""
    typed = str(text).strip()
    return int(typed) if typed.isdecimal() and len(typed) <= _LONGEST_SEED else typed[: 2 * _LONGEST_SEED]


def checked_prompt(text: Any) -> str:
    """The prompt, before anything is done with it.

    Raises:
        RequestError: it is too long, or no text.
    """
    (prompt,) = check_texts("the prompt", text or "")
    return str(prompt)


def shapes(limits: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sizes that the model draws, as name and "WxH": for each aspect ratio the one nearest to its native area."""
    step, low, high, native = (limits[key] for key in ("size_multiple", "minimum_size", "maximum_size", "native_size"))
    sides = range(-(-low // step) * step, high + 1, step)
    found = []
    for name, ratio in _SHAPES.items():
        fitting = [
            (width, height)
            for height in sides
            for width in {round(height * ratio / step) * step}
            if width in sides
            and abs(width / height / ratio - 1) <= _NEAR_ENOUGH
            and width * height <= _LARGEST_AREA * native**2
        ]
        if fitting:
            width, height = min(fitting, key=lambda size: abs(math.log(size[0] * size[1] / native**2)))
            found.append((f"{name}, {width}×{height}", f"{width}x{height}"))
    return found


def family_options() -> dict[str, str]:
    """Every option that some family has of its own, with an argument that it sets. A mask is painted, not set here."""
    known = [each.options for each in map(registry.family, registry.FAMILIES)]
    return {name: argument for options in known for name, argument in options.items() if argument != "mask_image"}


def label(option: str) -> str:
    """The option's name for people."""
    return _LABELS.get(option) or option.removesuffix("_scale").replace("_", " ").capitalize()


class Controls:
    """The controls of one drawing. ``several`` adds what concerns more than one picture, or one to start from."""

    def __init__(self, *, several: bool = True) -> None:
        """Make the components, where the layout under way is."""
        self._options: dict[str, Any] = {}
        self.shape = gr.Dropdown([], label="Shape", filterable=False)
        with gr.Row(elem_classes="pair", visible=False) as self._sides:
            self.width = gr.Number(label="Width", precision=0, elem_classes="width")
            self.height = gr.Number(label="Height", precision=0, elem_classes="height")
        self.size_note = gr.HTML(elem_classes="notes")
        if several:
            with gr.Row(elem_classes="seed"):
                self._options["seed"] = gr.Textbox(label="Seed", placeholder="a new one each time", max_lines=1)
                dice = gr.Button("Roll a seed", elem_classes="dice", elem_id="dice")
            dice.click(new_seed, outputs=self._options["seed"], show_progress="hidden")
            self.seed_note = gr.HTML(elem_classes="notes")
        with gr.Row(elem_classes="pair"):
            if several:
                self._options["count"] = gr.Slider(1, _MOST_AT_ONCE, value=1, step=1, label=label("count"))
                self._options["strength"] = gr.Slider(0.01, 1, step=0.01, label="Strength", visible=False)
            for name in family_options():
                self._options[name] = _component(name)
        self._options["negative_prompt"] = gr.Textbox(
            label=label("negative_prompt"), placeholder="what should not be in it", lines=1, max_lines=3, visible=False
        )

    @property
    def inputs(self) -> list[Any]:
        """All components that hold a value."""
        return [self.shape, self.width, self.height, *self._options.values()]

    @property
    def outputs(self) -> list[Any]:
        """All that :meth:`follow` may change."""
        return [*self.inputs, self._sides, self.size_note]

    @property
    def sides(self) -> Any:
        """The row of width and height."""
        return self._sides

    @property
    def negative_prompt(self) -> Any:
        """What to keep away from."""
        return self._options["negative_prompt"]

    @property
    def steps(self) -> Any:
        """How many steps the stage does that follows the text."""
        return self._options["steps"]

    @property
    def guidance(self) -> list[Any]:
        """Those on which it depends whether a negative prompt has an effect."""
        return [each for name, each in self._options.items() if name.endswith("guidance_scale")]

    def follow(self, pipe: Pipeline, *, picture: bool = False) -> Updates:
        """Set every control to what the model takes, and to its defaults, with a ``picture`` to start from or not."""
        takes, known = pipe.calls[_CALL].takes, self._arguments_of(pipe)
        updates: Updates = {}
        for name, component in self._options.items():
            argument = known.get(name)
            updates[component] = (
                gr.update(visible=False) if argument is None else _as_the_model_has_it(argument, takes[argument], pipe)
            )
        for component, update in self.with_picture(pipe, picture, takes[pipe.options["steps"]]).items():
            updates[component] = {**updates.get(component, {}), **update}
        updates[self.width] = gr.update(value=takes["width"], step=pipe.model.manifest.limits["size_multiple"])
        updates[self.height] = gr.update(value=takes["height"], step=pipe.model.manifest.limits["size_multiple"])
        guided = any((takes[known[name]] or 0) > 1 for name in known if name.endswith("guidance_scale"))
        updates[self._options["negative_prompt"]] = gr.update(visible=guided and "negative_prompt" in takes)
        return updates

    def with_picture(self, pipe: Pipeline, picture: bool, steps: int) -> Updates:
        """What changes when a picture to start from comes or goes.

        Its shape can be kept, it has a strength, and of the ``steps`` that are set now, that has to leave one.
        """
        takes = pipe.calls[_CALL].takes
        choices, own = shapes(pipe.model.manifest.limits), f"{takes['width']}x{takes['height']}"
        if own not in [value for _, value in choices]:
            choices = [(f"The model's own, {own.replace('x', '×')}", own), *choices]
        like = [("Like the picture", LIKE_THE_PICTURE)] if picture else []
        shape = LIKE_THE_PICTURE if picture else own
        updates: Updates = {
            self.shape: gr.update(choices=[*like, *choices, ("Another size …", _OTHER)], value=shape),
            self._sides: gr.update(visible=False),
            self.size_note: gr.update(value=""),
        }
        if "strength" in self._options and "strength" in takes:
            updates[self._options["strength"]] = gr.update(visible=picture, value=takes["strength"])
            enough = max(steps, fewest_steps(takes["strength"]) or steps) if picture else steps
            updates[self.steps] = gr.update(value=enough)
        return updates

    def beside_mask(self, pipe: Pipeline) -> Updates:
        """The defaults that are others where a mask is painted."""
        others = pipe.calls[_CALL].conditional_defaults.get("mask_image", {})
        known = {argument: name for name, argument in self._arguments_of(pipe).items()}
        return {self._options[known[argument]]: value for argument, value in others.items() if argument in known}

    def sides_for(self, shape: str) -> Any:
        """Whether width and height are asked for."""
        return gr.update(visible=shape == _OTHER)

    def guided(self, pipe: Pipeline, scales: Sequence[float]) -> Any:
        """Whether a negative prompt would have an effect, and is asked for."""
        known = self._arguments_of(pipe)
        names = [name for name in self._options if name.endswith("guidance_scale")]
        there = [scale for name, scale in zip(names, scales, strict=True) if name in known]
        return gr.update(visible="negative_prompt" in known and any((scale or 0) > 1 for scale in there))

    def read(self, pipe: Pipeline, values: Values, *, picture: bool = False) -> tuple[dict[str, Any], dict[Any, str]]:
        """The arguments that the controls stand for; and, by the place to say it, what can't be drawn and why."""
        told: dict[str, Any] = {}
        refused: dict[Any, str] = {}
        limits = pipe.calls[_CALL].limits(pipe.model.manifest.limits, {})
        known, arguments = self._arguments_of(pipe), arguments_of(_request_of(pipe))
        for name, argument in known.items():
            value = values[self._options[name]]
            if value in (None, "") or (name == "strength" and not picture):
                continue
            if name == "seed":
                value = typed_seed(value)
            try:
                told[argument] = arguments[argument].check(label(name), value, limits)
            except RequestError as error:
                refused[self.seed_note if name == "seed" else None] = str(error)
        if "negative_prompt" in told:
            told["negative_prompt"] = told["negative_prompt"][0]
            if not any(told.get(known[name], 0) > 1 for name in known if name.endswith("guidance_scale")):
                del told["negative_prompt"]
        if values[self.shape] not in (None, LIKE_THE_PICTURE):
            try:
                told |= self._size(pipe, values, told)
            except RequestError as error:
                refused[self.size_note] = str(error)
        return told, refused

    def _size(self, pipe: Pipeline, values: Values, told: Mapping[str, Any]) -> dict[str, int]:
        call = pipe.calls[_CALL]
        limits = call.limits(pipe.model.manifest.limits, {**call.takes, **told})
        sides = (values[self.width], values[self.height])
        if values[self.shape] != _OTHER:
            width, height = map(int, values[self.shape].split("x"))
            sides = (width, height)
        return {
            side: check_size(side.capitalize(), value, limits)
            for side, value in zip(("width", "height"), sides, strict=True)
        }

    def size_refused(self, pipe: Pipeline, values: Values) -> str:
        """Why the size can't be drawn; empty where it can."""
        return self.read(pipe, values)[1].get(self.size_note, "") if values[self.shape] == _OTHER else ""

    def _arguments_of(self, pipe: Pipeline) -> dict[str, str]:
        """The argument that each control sets in this model, without those that it doesn't take or has no choice of."""
        takes = pipe.calls[_CALL].takes
        known = {name: argument for name, argument in {**OPTIONS, **pipe.options}.items() if name in self._options}
        one_vae = len(autoencoders(pipe.model.manifest.components)) < len(VAES)
        return {
            name: argument
            for name, argument in known.items()
            if argument in takes and not (argument == "vae" and one_vae)
        }


def _component(name: str) -> Any:
    """A control for an option: a slider for a number, a box for a switch, a choice for the names of a VAE."""
    families = [each for each in map(registry.family, registry.FAMILIES) if name in each.options]
    kind = arguments_of(families[0].request)[families[0].options[name]].check.scalar
    if kind is bool:
        return gr.Checkbox(label=label(name), visible=False)
    if kind is int:
        return gr.Slider(1, 100, step=1, label=label(name), visible=False)
    if kind is float:
        return gr.Slider(0, 20, step=0.1, label=label(name), visible=False)
    return gr.Dropdown(list(VAES), label=label(name), filterable=False, visible=False)


def _request_of(pipe: Pipeline) -> type[Request]:
    """The kind of request that the model's family takes."""
    return registry.family(pipe.model.manifest.family).request


def _as_the_model_has_it(argument: str, default: Any, pipe: Pipeline) -> Any:
    """Shown, with the model's default, and room above it."""
    kind = arguments_of(_request_of(pipe))[argument].check.scalar
    if argument == "vae":
        return gr.update(visible=True, value=default or autoencoders(pipe.model.manifest.components)[0])
    if argument.endswith("inference_steps"):
        return gr.update(visible=True, value=default, maximum=max(20, 4 * default))
    if argument.endswith("guidance_scale"):
        return gr.update(visible=True, value=default, maximum=max(15, 2 * default))
    if kind is int and argument != "num_images_per_prompt":
        return gr.update(visible=True)  # a text, or a seed, which stay as they are
    return gr.update(visible=True, value=default)
