"""The fields of A1111's requests, read as its own server reads them.

Unknown fields are passed over, null means the default, and a text that looks like a number is one.
Only types are checked here. Whether a value fits is checked where all requests are checked: see
:class:`vinograph.request.Request`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vinograph.errors import RequestError
from vinograph.values import shown

Reader = Callable[[str, Any], Any]

_MOST_DIGITS = 40  # of a number that is given as text
_SWITCHES = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


def whole(name: str, value: Any) -> int:
    """A whole number, also one that is given as a text or with a point.

    Raises:
        RequestError: it is none.
    """
    number = _finite(value)
    if number is None or int(number) != number:
        raise RequestError(f"{name} is {shown(value)}; give a whole number")
    return int(number)


def number(name: str, value: Any) -> float:
    """A finite number, also one that is given as a text.

    Raises:
        RequestError: it is none.
    """
    found = _finite(value)
    if found is None:
        raise RequestError(f"{name} is {shown(value)}; give a number")
    return float(found)


def _finite(value: Any) -> int | float | None:
    if isinstance(value, str) and len(value) <= _MOST_DIGITS:
        for kind in (int, float):
            try:
                value = kind(value)
                break
            except ValueError:
                continue
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def switch(name: str, value: Any) -> bool:
    """True or false, also as 0 and 1 or in words.

    Raises:
        RequestError: it is neither.
    """
    found = value if isinstance(value, bool) else _SWITCHES.get(str(value)[:_MOST_DIGITS].lower())
    if found is None:
        raise RequestError(f"{name} is {shown(value)}; give true or false")
    return found


def text(name: str, value: Any) -> str:
    """A text.

    Raises:
        RequestError: it is of another type.
    """
    if not isinstance(value, str):
        raise RequestError(f"{name} is {shown(value)}; give a text")
    return value


def mapping(name: str, value: Any) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RequestError: it is of another type.
    """
    if not isinstance(value, dict):
        raise RequestError(f"{name} is {shown(value)}; give an object")
    return value


def listing(name: str, value: Any) -> list[Any]:
    """A list.

    Raises:
        RequestError: it is of another type.
    """
    if not isinstance(value, list):
        raise RequestError(f"{name} is {shown(value)}; give a list")
    return value


def one_of(name: str, value: Any, choices: tuple[int, ...]) -> int:
    """One of several whole numbers.

    Raises:
        RequestError: it is another.
    """
    found = whole(name, value)
    if found not in choices:
        raise RequestError(f"{name} is {shown(value)}; give one of {', '.join(map(str, choices))}")
    return found


def as_it_is(_name: str, value: Any) -> Any:
    """Any value: it has no effect, or is read later."""
    return value


@dataclass(frozen=True)
class Field:
    """A field: how it is read, and its default. None is the default of the model."""

    read: Reader
    default: Any = None
    ignored: bool = False


_COMMON: Mapping[str, Field] = {
    "prompt": Field(text, ""),
    "negative_prompt": Field(text, ""),
    "seed": Field(whole, -1),
    "steps": Field(whole),
    "cfg_scale": Field(number),
    "width": Field(whole),
    "height": Field(whole),
    "batch_size": Field(whole, 1),
    "n_iter": Field(whole, 1),
    "sampler_name": Field(text),
    "sampler_index": Field(text),
    "scheduler": Field(text),
    "denoising_strength": Field(number),
    "clip_skip": Field(whole),
    "override_settings": Field(mapping, {}),
    "override_settings_restore_afterwards": Field(switch, True),
    "send_images": Field(switch, True),
    "styles": Field(as_it_is, [], ignored=True),
    "subseed": Field(as_it_is, -1),
    "subseed_strength": Field(as_it_is, 0, ignored=True),
    "seed_resize_from_h": Field(as_it_is, -1),
    "seed_resize_from_w": Field(as_it_is, -1),
    "restore_faces": Field(as_it_is, False, ignored=True),
    "tiling": Field(as_it_is, False, ignored=True),
    "eta": Field(as_it_is),
    "s_churn": Field(as_it_is),
    "s_tmin": Field(as_it_is),
    "s_tmax": Field(as_it_is),
    "s_noise": Field(as_it_is),
    "refiner_checkpoint": Field(as_it_is, ignored=True),
    "refiner_switch_at": Field(as_it_is),
    "do_not_save_samples": Field(as_it_is, False),
    "do_not_save_grid": Field(as_it_is, False),
    "save_images": Field(as_it_is, False),
    "script_name": Field(as_it_is, ignored=True),
    "script_args": Field(as_it_is, []),
    "alwayson_scripts": Field(as_it_is, {}, ignored=True),
}

TXT2IMG: Mapping[str, Field] = {
    **_COMMON,
    "enable_hr": Field(switch, False),
    "hr_scale": Field(number, 2.0),
    "hr_upscaler": Field(text),
    "hr_second_pass_steps": Field(whole, 0),
    "hr_resize_x": Field(whole, 0),
    "hr_resize_y": Field(whole, 0),
    "hr_checkpoint_name": Field(as_it_is, ignored=True),
    "hr_sampler_name": Field(as_it_is, ignored=True),
    "hr_scheduler": Field(as_it_is, ignored=True),
    "hr_prompt": Field(as_it_is, "", ignored=True),
    "hr_negative_prompt": Field(as_it_is, "", ignored=True),
    "firstphase_width": Field(as_it_is, 0),
    "firstphase_height": Field(as_it_is, 0),
}
"""The fields of ``txt2img``."""

IMG2IMG: Mapping[str, Field] = {
    **_COMMON,
    "init_images": Field(listing, []),
    "include_init_images": Field(switch, False),
    "resize_mode": Field(lambda name, value: one_of(name, value, (0, 1, 2, 3)), 0),
    "mask": Field(text),
    "mask_blur": Field(whole),
    "mask_blur_x": Field(whole, 4),
    "mask_blur_y": Field(whole, 4),
    "inpainting_fill": Field(lambda name, value: one_of(name, value, (0, 1, 2, 3)), 0),
    "inpaint_full_res": Field(switch, True),
    "inpaint_full_res_padding": Field(whole, 0),
    "inpainting_mask_invert": Field(switch, False),
    "image_cfg_scale": Field(as_it_is),
    "initial_noise_multiplier": Field(as_it_is),
}
"""The fields of ``img2img``."""


def read_fields(body: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """The values of all ``fields``: what ``body`` has, else the default.

    Raises:
        RequestError: a value is of another type, which can't be read as the right one.
    """
    return {
        name: field.default if body.get(name) is None else field.read(name, body[name])
        for name, field in fields.items()
    }


def without_effect(values: Mapping[str, Any], fields: Mapping[str, Field]) -> list[str]:
    """The names of fields that were set, though they do nothing here."""
    return [name for name, field in fields.items() if field.ignored and values[name]]
