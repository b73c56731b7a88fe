"""Turns a request of A1111's API into a drawing, by the names that the model's family has for it."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vinograph import a1111
from vinograph.arguments import MAX_PROMPT, check_count
from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.schedulers import choose
from vinograph.serve.a1111_fields import Field, without_effect
from vinograph.serve.a1111_options import Options
from vinograph.serve.a1111_pictures import read_pictures
from vinograph.serve.configuration import Limits
from vinograph.serve.contract import AdapterInfo, Drawing, ModelInfo
from vinograph.values import shown

AUTOMATIC = "automatic"
"""A1111's name for a schedule that the sampler chooses itself."""

_DEFAULT_SAMPLER = "Euler"  # A1111's, where a request names a schedule alone
_RANDOM_SEED = -1
_LAYERS_OF_A1111 = 2  # SDXL reads the last layer but one by itself
_ORIGINAL = 1  # of inpainting_fill
_SAME_SHAPE = 0.02  # by which two sides' factors may differ
# "None" enlarges a picture by Lanczos in A1111, too.
_UPSCALERS = {"none": "lanczos", **{theirs.lower(): ours for ours, theirs in a1111.UPSCALERS.items()}}
_NAMES: Mapping[str, str] = {
    "num_images_per_prompt": "batch_size × n_iter",
    "scheduler": "sampler_name",
    "image": "init_images",
    "mask_image": "mask",
    "padding_mask_crop": "inpaint_full_res_padding",
    "strength": "denoising_strength",
    "hires": "hr_scale",
    "hires_steps": "hr_second_pass_steps",
    "hires_strength": "denoising_strength",
    "hires_upscaler": "hr_upscaler",
    "vae": "sd_vae",
}


@dataclass(frozen=True)
class A1111Request:
    """A request whose fields were read.

    Attributes:
        values: the fields' values, by their names.
        fields: the fields of its route.
        options: A1111's options, with those that the request overrides.
        model: the model that draws.
        client: the address that asks.
    """

    values: Mapping[str, Any]
    fields: Mapping[str, Field]
    options: Options
    model: ModelInfo
    client: str = ""

    @property
    def family_options(self) -> Mapping[str, str]:
        """The argument of the model's family for each option of the command line."""
        return registry.family(self.model.family).options

    def without_pictures(self) -> A1111Request:
        """The request without its pictures, unless they are to be sent back."""
        if self.values.get("include_init_images", True):
            return self
        return dataclasses.replace(self, values={**self.values, "init_images": None, "mask": None})


@dataclass(frozen=True)
class Prepared:
    """A drawing, and ``notes`` on what of the request has no effect."""

    drawing: Drawing
    notes: tuple[str, ...]

    @property
    def pictures(self) -> int:
        """The number of pictures to draw."""
        return int(self.drawing.arguments["num_images_per_prompt"])


async def prepare(request: A1111Request, adapters: Sequence[AdapterInfo], limits: Limits) -> Prepared:
    """The drawing that a request asks for. Its pictures are decoded in a thread.

    Raises:
        RequestError: a value has no meaning, or a picture can't be read.
    """
    notes = [f"{name} has no effect here" for name in without_effect(request.values, request.fields)]
    prompt, weights = _prompt(request.values["prompt"], {each.name for each in adapters}, notes)
    arguments = {
        "prompt": prompt,
        **a1111.prompt_arguments(request.model.takes),
        **_scalars(request),
        **_sampler(request.values, notes),
        **(_hires(request) if request.values.get("enable_hr") else {}),
    }
    if "init_images" in request.fields:
        arguments |= await _pictures(request, limits, notes)
    steps, scale = (request.family_options.get(each, "") for each in ("steps", "guidance_scale"))
    drawing = Drawing(
        model=request.model.name,
        arguments=arguments,
        names={**_NAMES, steps: "steps", scale: "cfg_scale"},
        adapters=weights,
        encoding=request.options.encoding,
        client=request.client,
    )
    return Prepared(drawing, tuple(notes))


def _prompt(text: str, known: Collection[str], notes: list[str]) -> tuple[str, dict[str, float]]:
    """The prompt without tags for adapters, and the weights of those that there are.

    As in A1111, a tag for an unknown one is passed over, with a note.
    """
    if len(text) > MAX_PROMPT:  # which is refused with all other values
        return text, {}
    prompt, named = a1111.split_adapters(text)
    notes.extend(f"there is no adapter {shown(name)}: its tag has no effect" for name in named if name not in known)
    return prompt, {name: weight for name, weight in named.items() if name in known}


def _scalars(request: A1111Request) -> dict[str, Any]:
    """Arguments that are fields under another name; what the request leaves out is the model's."""
    values, options = request.values, request.options
    count = check_count("batch_size", values["batch_size"]) * check_count("n_iter", values["n_iter"])
    layers = options.clip_skip if values["clip_skip"] is None else values["clip_skip"]
    given = {
        "negative_prompt": values["negative_prompt"] or None,
        "width": values["width"],
        "height": values["height"],
        request.family_options.get("steps", "num_inference_steps"): values["steps"],
        request.family_options.get("guidance_scale", "guidance_scale"): values["cfg_scale"],
        "seed": None if values["seed"] == _RANDOM_SEED else values["seed"],
        "num_images_per_prompt": count,
        "clip_skip": layers - _LAYERS_OF_A1111 if layers > _LAYERS_OF_A1111 else None,
        "vae": options.own_vae,
    }
    return {name: value for name, value in given.items() if value is not None}


def _sampler(values: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    """The scheduler of ``sampler_name`` and ``scheduler``, which A1111's older names hold in one.

    As in A1111, a sampler of timesteps takes no notice of a schedule of sigmas.

    Raises:
        RequestError: there is no such sampler, or no such schedule.
    """
    sampler, schedule = values["sampler_name"] or values["sampler_index"] or "", values["scheduler"] or AUTOMATIC
    if schedule.lower() == AUTOMATIC:
        if sampler and not _is_scheduler(sampler):
            raise RequestError(f"sampler_name is {_unknown(sampler, 'samplers')}")
        return {"scheduler": sampler} if sampler else {}
    if not _is_scheduler(f"{_DEFAULT_SAMPLER} {schedule}"):
        raise RequestError(f"scheduler is {_unknown(schedule, 'schedulers')}")
    sampler = sampler or _DEFAULT_SAMPLER
    whole = sampler if sampler.lower().endswith(f" {schedule.lower()}") else f"{sampler} {schedule}"
    if _is_scheduler(whole):
        return {"scheduler": whole}
    if not _is_scheduler(sampler):
        raise RequestError(f"sampler_name is {_unknown(sampler, 'samplers')}")
    notes.append(f"the scheduler {shown(schedule)} has no effect with the sampler {shown(sampler)}")
    return {"scheduler": sampler}


def _unknown(name: str, route: str) -> str:
    return f"{shown(name)}, which isn't computed here; GET /sdapi/v1/{route} lists those that are"


def _is_scheduler(name: str) -> bool:
    try:
        choose(name)
    except RequestError:
        return False
    return True


def _hires(request: A1111Request) -> dict[str, Any]:
    """Arguments of the second drawing.

    Raises:
        RequestError: there is no such upscaler, or the new size is of another shape.
    """
    values, upscaler = request.values, request.values["hr_upscaler"]
    if upscaler and upscaler.lower() not in _UPSCALERS:
        raise RequestError(f"hr_upscaler is {shown(upscaler)}; give one of {', '.join(a1111.UPSCALERS.values())}")
    given = {
        "hires": _hires_factor(request),
        "hires_steps": values["hr_second_pass_steps"] or None,
        "hires_strength": values["denoising_strength"],
        "hires_upscaler": _UPSCALERS[upscaler.lower()] if upscaler else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _hires_factor(request: A1111Request) -> float:
    """The factor of ``hr_scale``, or of the size that ``hr_resize_x`` and ``hr_resize_y`` name.

    Raises:
        RequestError: that size is of another shape than the picture.
    """
    values, sides = request.values, {"hr_resize_x": "width", "hr_resize_y": "height"}
    factors = [
        values[larger] / (values[side] or request.model.takes[side]) for larger, side in sides.items() if values[larger]
    ]
    if not factors:
        return float(values["hr_scale"])
    if not math.isclose(*factors[:1], *factors[-1:], rel_tol=_SAME_SHAPE):
        raise RequestError(
            f"hr_resize_x is {values['hr_resize_x']} and hr_resize_y is {values['hr_resize_y']}, of another shape than "
            "the picture; give one of the two, and 0 for the other"
        )
    return float(factors[0])


async def _pictures(request: A1111Request, limits: Limits, notes: list[str]) -> dict[str, Any]:
    """Arguments of a drawing that starts from a picture."""
    values = request.values
    crop = bool(values["mask"]) and values["inpaint_full_res"] and "padding_mask_crop" in request.model.takes
    found = await asyncio.to_thread(read_pictures, values, limits, crop=crop)
    if found.mask is not None and values["inpainting_fill"] > _ORIGINAL:
        notes.append(f"inpainting_fill {values['inpainting_fill']} starts from the picture here, as {_ORIGINAL} does")
    given = {
        "image": found.picture,
        "mask_image": found.mask,
        "padding_mask_crop": values["inpaint_full_res_padding"] if crop else None,
        "strength": values["denoising_strength"],
    }
    return {name: value for name, value in given.items() if value is not None}
