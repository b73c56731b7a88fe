"""Checks that a drawing asks for no more than the server takes."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from typing import Any

from PIL import Image

from vinograph.arguments import check_image, check_steps
from vinograph.errors import RequestError
from vinograph.families.sizes import SizeLimits
from vinograph.images import Size, size_of
from vinograph.request import Request, arguments_of
from vinograph.serve.configuration import Limits
from vinograph.serve.contract import PICTURE_FORMATS, Drawing

RAW = "raw"
"""Encoding of pictures that stay within this machine: their RGB values, row by row."""


def check_drawing(drawing: Drawing) -> None:
    """Check what isn't an argument of the model's call, and that no argument names a file here.

    Raises:
        RequestError: the encoding isn't offered, or a picture is a path.
    """
    encoding, names = drawing.encoding, drawing.names
    if encoding.format not in (*PICTURE_FORMATS, RAW):
        raise RequestError(f"the format is {encoding.format}; choose {', '.join(PICTURE_FORMATS)}")
    if encoding.quality is not None and not 0 <= encoding.quality <= 100:
        raise RequestError(f"the quality is {encoding.quality}; give 0 to 100")
    for name, argument in arguments_of(Request).items():
        if argument.check is check_image and isinstance(drawing.arguments.get(name), (str, bytes, os.PathLike)):
            raise RequestError(f"{names.get(name, name)} is a text; send the picture itself")


def check_output(request: Request, call: str, takes: Collection[str]) -> None:
    """Check that a call gives pictures.

    Raises:
        RequestError: it gives arrays.
    """
    if "output_type" not in takes:
        raise RequestError(f"{call} gives no pictures, and the server answers with pictures alone")
    if request.output_type != "pil":
        raise RequestError(f"output_type is {request.output_type!r}; the server answers with pictures: leave it out")


def check_limits(request: Request, sizes: SizeLimits, limits: Limits, names: Mapping[str, str]) -> None:
    """Check a resolved request.

    Raises:
        RequestError: it asks for too many pictures, steps or pixels. The message says how many are
            taken.
    """
    if request.image_count > limits.pictures:
        name = names.get("num_images_per_prompt", "num_images_per_prompt")
        raise RequestError(
            f"{name}: that is {request.image_count} pictures; here a request takes up to {limits.pictures}"
        )
    for name, steps in _steps_of(request).items():
        if steps > limits.steps:
            raise RequestError(f"{names.get(name, name)} is {steps} steps; here a picture takes up to {limits.steps}")
    size = _size_of(request, sizes)
    if size is not None and size.height * size.width > limits.pixels:
        sides = " and ".join(dict.fromkeys(names.get(side, side) for side in ("width", "height")))
        shrink = math.sqrt(limits.pixels / (size.height * size.width))
        fits = sizes.within(Size(*(int(side * shrink) for side in size)))
        raise RequestError(f"{sides}: {size} is more than the {limits.pixels:,} pixels taken here; {fits} would do")


def _steps_of(request: Request) -> dict[str, int]:
    """The numbers of steps that a request asks for, by their arguments."""
    found = {}
    for name, argument in arguments_of(type(request)).items():
        value: Any = getattr(request, name)
        if value is None:
            continue
        if argument.check is check_steps:
            found[name] = int(value)
        elif argument.sets_steps and hasattr(value, "__len__") and not isinstance(value, str):
            found[name] = len(value)
    return found


def _size_of(request: Request, sizes: SizeLimits) -> Size | None:
    """The size of the pictures that a request gives; None where it is the model's own."""
    scale = getattr(request, "hires", None) or 1
    if request.height is not None and request.width is not None:
        size = Size(request.height, request.width)
    elif isinstance(request.image, Image.Image):
        size = sizes.within(size_of(request.image))
        left, top, right, bottom = getattr(request, "extend", None) or (0, 0, 0, 0)
        size = sizes.within(Size(size.height + top + bottom, size.width + left + right))
    else:
        return None
    return Size(*(round(side * scale) for side in size))
