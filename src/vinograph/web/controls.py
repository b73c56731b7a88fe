"""The controls of a request: one for each option of any family, set to the model's defaults.

No family is known here by name. As on the command line, the options come from what the families
declare; those that the chosen model doesn't take are hidden. The schema of requests checks every
value.
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
from vinograph.families.autoencoder import vae_names
from vinograph.pipeline import Pipeline
from vinograph.request import OPTIONS, Argument, Request, arguments_of, fewest_steps
from vinograph.web.help_lines import help_line
from vinograph.web.slider import Slider

Values = Mapping[Any, Any]
Updates = dict[Any, Any]

SAME_AS_INIT_IMAGE = "init image"
CUSTOM = "custom"
_CALL = "generate"
_MAX_COUNT = 8
_LONGEST_SEED = 20  # digits

_LABELS = {"vae": "VAE", "vae_tiling": "VAE tiling", "count": "Images"}
_NOT_ON_PAGE = ("mask_image", "extend")  # the init image's own controls
_MODELS_OWN = ("Model's own", "")
_ASPECT_RATIOS: Mapping[str, Fraction] = {
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
_RATIO_TOLERANCE = 0.04  # of the ratio that a name says
_MAX_AREA = 2.0  # of the model's native one


def new_seed() -> str:
    """A random seed, as text: a browser's numbers have too few digits for the longest seeds."""
    return str(secrets.randbits(32))


def typed_number(text: Any) -> Any:
    """The number that was typed; anything else stays a text, which the argument's check refuses."""
    typed = str(text).strip()
    return int(typed) if typed.isdecimal() and len(typed) <= _LONGEST_SEED else typed[: 2 * _LONGEST_SEED]


def checked_prompt(text: Any) -> str:
    """The prompt, checked before anything else is done with it.

    Raises:
        RequestError: the prompt is too long, or no text.
    """
    (prompt,) = check_texts("the prompt", text or "")
    return str(prompt)


def size_choices(limits: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The model's size for each aspect ratio, as name and "WxH", near its native area."""
    step, low, high, native = (limits[key] for key in ("size_multiple", "minimum_size", "maximum_size", "native_size"))
    sides = range(-(-low // step) * step, high + 1, step)
    found = []
    for name, ratio in _ASPECT_RATIOS.items():
        fitting = [
            (width, height)
            for height in sides
            for width in {round(height * ratio / step) * step}
            if width in sides
            and abs(width / height / ratio - 1) <= _RATIO_TOLERANCE
            and width * height <= _MAX_AREA * native**2
        ]
        if fitting:
            width, height = min(fitting, key=lambda size: abs(math.log(size[0] * size[1] / native**2)))
            found.append((f"{name}, {width}×{height}", f"{width}x{height}"))
    return found


def family_options() -> dict[str, str]:
    """The families' own options, with an argument that each sets, but for those of the init image."""
    return {
        name: argument
        for family in map(registry.family, registry.FAMILIES)
        for name, argument in family.options.items()
        if argument not in _NOT_ON_PAGE and arguments_of(family.request)[argument].on_page
    }


def options_of(pipe: Pipeline) -> dict[str, str]:
    """The options that leave a choice with this model, with the argument that each sets."""
    takes = pipe.calls[_CALL].takes
    one_vae = len(vae_names(pipe.model.manifest.components)) < len(VAES)
    declared = arguments_of(_request_of(pipe))
    return {
        name: argument
        for name, argument in {**OPTIONS, **pipe.options}.items()
        if argument in takes and declared[argument].on_page and not (argument == "vae" and one_vae)
    }


def label(option: str) -> str:
    """The label of an option: "decoder_guidance_scale" is "Decoder guidance"."""
    return _LABELS.get(option) or option.removesuffix("_scale").replace("_", " ").capitalize()


class Controls:
    """The controls of one request.

    ``several`` adds those that a comparison of two models doesn't have: the seed, the number of
    images, and the strength of an init image.
    """

    def __init__(self, *, several: bool = True) -> None:
        """Make the components inside the Gradio block that is open."""
        self._options: dict[str, Any] = {}
        self.size_choice = gr.Dropdown([], label="Size", filterable=False)
        with gr.Row(elem_classes="pair", visible=False) as self._sides:
            self.width = gr.Number(label="Width", precision=0, elem_classes="width")
            self.height = gr.Number(label="Height", precision=0, elem_classes="height")
        self.size_note = gr.HTML(elem_classes="notes")
        if several:
            with gr.Row(elem_classes="seed"):
                self._options["seed"] = gr.Textbox(
                    label="Seed", placeholder="random", max_lines=1, info=help_line("seed", "")
                )
                dice = gr.Button("Random seed", elem_classes="dice", elem_id="dice")
            dice.click(new_seed, outputs=self._options["seed"], show_progress="hidden")
            self.seed_note = gr.HTML(elem_classes="notes")
        with gr.Row(elem_classes="pair"):
            if several:
                self._options["count"] = Slider(
                    1, _MAX_COUNT, value=1, step=1, label=label("count"), info=help_line("count", "")
                )
                self._options["strength"] = _control("strength")
            for name in family_options():
                self._options[name] = _control(name)
        self._options["negative_prompt"] = gr.Textbox(
            label=label("negative_prompt"),
            info=help_line("negative_prompt", ""),
            placeholder="what to avoid",
            lines=1,
            max_lines=3,
            visible=False,
        )

    @property
    def options(self) -> Mapping[str, Any]:
        """The component of each option, by the option's name."""
        return self._options

    @property
    def inputs(self) -> list[Any]:
        """The components that hold a value."""
        return [self.size_choice, self.width, self.height, *self._options.values()]

    @property
    def outputs(self) -> list[Any]:
        """The components that :meth:`for_model` may change."""
        return [*self.inputs, self._sides, self.size_note]

    @property
    def sides(self) -> Any:
        """The row of width and height."""
        return self._sides

    @property
    def negative_prompt(self) -> Any:
        """The negative prompt's control."""
        return self._options["negative_prompt"]

    @property
    def steps(self) -> Any:
        """The control of the number of steps, of the text-conditional stage."""
        return self._options["steps"]

    @property
    def guidance(self) -> list[Any]:
        """The controls of guidance scales, above one of which a negative prompt has an effect."""
        return [each for name, each in self._options.items() if name.endswith("guidance_scale")]

    def for_model(self, pipe: Pipeline, *, init_image: bool = False) -> Updates:
        """Updates that show the model's options with its defaults, and hide the others."""
        takes, known = pipe.calls[_CALL].takes, self.arguments(pipe)
        updates: Updates = {}
        for name, component in self._options.items():
            argument = known.get(name)
            updates[component] = gr.update(visible=False) if argument is None else _default_update(argument, pipe)
        for component, update in self.with_init_image(pipe, init_image, takes[pipe.options["steps"]]).items():
            updates[component] = {**updates.get(component, {}), **update}
        updates[self.width] = gr.update(value=takes["width"], step=pipe.model.manifest.limits["size_multiple"])
        updates[self.height] = gr.update(value=takes["height"], step=pipe.model.manifest.limits["size_multiple"])
        guided = any((takes[known[name]] or 0) > 1 for name in known if name.endswith("guidance_scale"))
        updates[self._options["negative_prompt"]] = gr.update(visible=guided and "negative_prompt" in takes)
        return updates

    def with_init_image(self, pipe: Pipeline, init_image: bool, steps: int) -> Updates:
        """Updates for an init image that was given or taken away.

        With one, its size can be chosen and its strength set. ``steps``, which are set now, are
        raised where that strength would leave none to do.
        """
        takes = pipe.calls[_CALL].takes
        choices, default = size_choices(pipe.model.manifest.limits), f"{takes['width']}x{takes['height']}"
        if default not in [value for _, value in choices]:
            choices = [(f"Model default, {default.replace('x', '×')}", default), *choices]
        same = [("Same as the init image", SAME_AS_INIT_IMAGE)] if init_image else []
        chosen = SAME_AS_INIT_IMAGE if init_image else default
        updates: Updates = {
            self.size_choice: gr.update(choices=[*same, *choices, ("Custom size …", CUSTOM)], value=chosen),
            self._sides: gr.update(visible=False),
            self.size_note: gr.update(value=""),
        }
        if "strength" in self._options and "strength" in takes:
            updates[self._options["strength"]] = gr.update(visible=init_image, value=takes["strength"])
            enough = max(steps, fewest_steps(takes["strength"]) or steps) if init_image else steps
            updates[self.steps] = gr.update(value=enough)
        return updates

    def defaults_with(self, pipe: Pipeline, argument: str, steps: int) -> Updates:
        """Defaults that change when ``argument`` is given, such as a mask.

        ``steps``, which are set now, are raised where a changed strength would leave none to do.
        """
        defaults = pipe.calls[_CALL].conditional_defaults.get(argument, {})
        option_of = {argument: name for name, argument in self.arguments(pipe).items()}
        updates: Updates = {self._options[option_of[name]]: defaults[name] for name in defaults if name in option_of}
        if "strength" in defaults and (fewest := fewest_steps(defaults["strength"]) or steps) > steps:
            updates[self.steps] = fewest
        return updates

    def custom_size_update(self, size_choice: str) -> Any:
        """An update that shows width and height where a custom size is chosen."""
        return gr.update(visible=size_choice == CUSTOM)

    def negative_prompt_update(self, pipe: Pipeline, scales: Sequence[float]) -> Any:
        """An update that shows the negative prompt where a guidance scale gives it an effect."""
        known = self.arguments(pipe)
        names = [name for name in self._options if name.endswith("guidance_scale")]
        taken = [scale for name, scale in zip(names, scales, strict=True) if name in known]
        return gr.update(visible="negative_prompt" in known and any((scale or 0) > 1 for scale in taken))

    def read(
        self, pipe: Pipeline, values: Values, *, init_image: bool = False
    ) -> tuple[dict[str, Any], dict[Any, str]]:
        """The arguments that the controls describe; and errors, by the place to say them."""
        arguments: dict[str, Any] = {}
        errors: dict[Any, str] = {}
        limits = pipe.calls[_CALL].limits(pipe.model.manifest.limits, {})
        known, declared = self.arguments(pipe), arguments_of(_request_of(pipe))
        for name, argument in known.items():
            value = values[self._options[name]]
            if value in (None, "", _none_of(declared[argument], pipe.calls[_CALL].takes[argument])):
                continue
            if name == "strength" and not init_image:
                continue
            if isinstance(value, str) and declared[argument].check.scalar is int:
                value = typed_number(value)
            try:
                arguments[argument] = declared[argument].check(label(name), value, limits)
            except RequestError as error:
                errors[self.seed_note if name == "seed" else None] = str(error)
        for argument in [each for each in arguments if each != "strength"]:  # which the init image brings
            if any(needed in known.values() and needed not in arguments for needed in declared[argument].needs):
                del arguments[argument]
        if "negative_prompt" in arguments:
            arguments["negative_prompt"] = arguments["negative_prompt"][0]
            if not any(arguments.get(known[name], 0) > 1 for name in known if name.endswith("guidance_scale")):
                del arguments["negative_prompt"]
        if values[self.size_choice] not in (None, SAME_AS_INIT_IMAGE):
            try:
                arguments |= self._size(pipe, values, arguments)
            except RequestError as error:
                errors[self.size_note] = str(error)
        return arguments, errors

    def _size(self, pipe: Pipeline, values: Values, arguments: Mapping[str, Any]) -> dict[str, int]:
        call = pipe.calls[_CALL]
        limits = call.limits(pipe.model.manifest.limits, {**call.takes, **arguments})
        sides = (values[self.width], values[self.height])
        if values[self.size_choice] != CUSTOM:
            sides = tuple(typed_number(side) for side in values[self.size_choice].split("x", 1))
        if len(sides) != 2:
            raise RequestError("choose a size")
        return {
            side: check_size(side.capitalize(), value, limits)
            for side, value in zip(("width", "height"), sides, strict=True)
        }

    def size_error(self, pipe: Pipeline, values: Values) -> str:
        """What is wrong with a custom size; empty where nothing is."""
        return self.read(pipe, values)[1].get(self.size_note, "") if values[self.size_choice] == CUSTOM else ""

    def arguments(self, pipe: Pipeline) -> dict[str, str]:
        """The argument of this model that each option sets, without those that leave no choice."""
        return {name: argument for name, argument in options_of(pipe).items() if name in self._options}


def _control(name: str) -> Any:
    """A control for an option: a slider for a number, a checkbox, or a dropdown for a text."""
    families = [each for each in map(registry.family, registry.FAMILIES) if name in {**OPTIONS, **each.options}]
    argument = {**OPTIONS, **families[0].options}[name]
    declared = arguments_of(families[0].request)[argument]
    check, kind = declared.check, declared.check.scalar
    named: dict[str, Any] = {"label": label(name), "info": help_line(name, declared.about), "visible": False}
    if kind is bool:
        return gr.Checkbox(**named)
    if declared.slider is not None:
        least, most, step = declared.slider
        return Slider(least, most, step=step, **named)
    if kind is int and all(each.calls[_CALL].takes.get(argument) is None for each in families):
        return gr.Textbox(placeholder="default", max_lines=1, **named)
    if kind is int:
        return Slider(1, 100, step=1, **named)
    if kind is float:
        return Slider(0, 20, step=0.1, **named)
    return gr.Dropdown(list(check.choices), filterable=False, **named)


def _none_of(argument: Argument, default: Any) -> Any:
    """The value of a slider that stands for no value: the least, where the argument has no default."""
    return argument.slider[0] if argument.slider is not None and default is None else None


def _request_of(pipe: Pipeline) -> type[Request]:
    """The class of requests that the model's family takes."""
    return registry.family(pipe.model.manifest.family).request


def _default_update(argument: str, pipe: Pipeline) -> Any:
    """An update that shows a control with the model's default, in a range well beyond it."""
    call = pipe.calls[_CALL]
    default = call.takes[argument]
    declared = arguments_of(_request_of(pipe))[argument]
    kind, none = declared.check.scalar, _none_of(declared, default)
    if none is not None:
        return gr.update(visible=True, value=none)
    if argument == "vae":
        return gr.update(visible=True, value=default or vae_names(pipe.model.manifest.components)[0])
    if argument in call.choices:
        offered = call.choices[argument]
        value = default if default in offered else _MODELS_OWN[1]
        return gr.update(visible=True, choices=[_MODELS_OWN, *((each, each) for each in offered)], value=value)
    if argument.endswith("inference_steps"):
        return gr.update(visible=True, value=default, maximum=max(20, 4 * default))
    if argument.endswith("guidance_scale"):
        return gr.update(visible=True, value=default, maximum=max(15, 2 * default))
    if kind is int and argument != "num_images_per_prompt":
        return gr.update(visible=True)  # a text or a seed, where what the user typed stays
    return gr.update(visible=True, value=default)
