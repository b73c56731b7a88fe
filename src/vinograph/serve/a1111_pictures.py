"""Prepares the picture and the mask of A1111's ``img2img``: their sizes, blur and fill.

All of it may take a second for large pictures: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from vinograph.errors import RequestError
from vinograph.families.inpainting import filled
from vinograph.images import Size, resize, size_of
from vinograph.serve.configuration import Limits
from vinograph.serve.input_pictures import from_base64
from vinograph.values import shown

Array = NDArray[np.float32]

_MOST_BLUR = 64  # pixels, as on A1111's page
_CROP, _FILL = 1, 2  # of resize_mode; 0 and 3 stretch
_SURROUNDINGS = 0  # of inpainting_fill; the others begin with what the picture shows
_COARSE = 256  # pixels of a side, where colours are spread


@dataclass(frozen=True)
class InputPictures:
    """The picture to start from, in RGB, and its mask, in grey and of its size, white where to draw anew."""

    picture: Image.Image
    mask: Image.Image | None = None


def read_pictures(values: Mapping[str, Any], limits: Limits, *, crop: bool) -> InputPictures:
    """Decode and prepare the pictures of a request.

    With ``crop``, only the mask's surroundings will be drawn, and the picture keeps its size.

    Raises:
        RequestError: there is none, or more than one, or it can't be read.
    """
    given = values["init_images"]
    if len(given) != 1:
        raise RequestError(f"init_images has {len(given)} pictures; give one")
    blur = _blur(values)
    picture = _opaque(from_base64(given[0], "init_images", limits))
    if not values["mask"]:
        return InputPictures(_resized(picture, values, limits))
    mask = _grey(from_base64(values["mask"], "mask", limits))
    if not crop:
        picture, mask = _resized(picture, values, limits), _resized(mask, values, limits).convert("L")
    mask = resize(mask, size_of(picture))
    mask = ImageOps.invert(mask) if values["inpainting_mask_invert"] else mask
    mask = mask.filter(ImageFilter.GaussianBlur(blur)) if any(blur) else mask
    if values["inpainting_fill"] == _SURROUNDINGS:
        picture = fill_from_surroundings(picture, mask)
    return InputPictures(picture, mask)


def _blur(values: Mapping[str, Any]) -> tuple[int, int]:
    """The blur of the mask in both directions, in pixels."""
    both, names = values["mask_blur"], ("mask_blur_x", "mask_blur_y")
    for name, value in [("mask_blur", both or 0), *((name, values[name]) for name in names)]:
        if not 0 <= value <= _MOST_BLUR:
            raise RequestError(f"{name} is {shown(value)}; give a whole number from 0 to {_MOST_BLUR}")
    x, y = (values[name] if both is None else both for name in names)
    return x, y


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture on white, as A1111 shows what is transparent."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def _grey(mask: Image.Image) -> Image.Image:
    """The mask in grey: its opacity if it is transparent anywhere, else its brightness."""
    return mask.getchannel("A") if mask.mode == "RGBA" else mask.convert("L")


def _resized(picture: Image.Image, values: Mapping[str, Any], limits: Limits) -> Image.Image:
    """The picture at the size to draw, by ``resize_mode``; unchanged where the request names no size."""
    size = Size(values["height"] or 0, values["width"] or 0)
    # A size that isn't drawn is refused with all other values: nothing large is made of it here.
    if min(size) <= 0 or size.height * size.width > limits.pixels or size == size_of(picture):
        return picture
    if values["resize_mode"] == _CROP:
        return ImageOps.fit(picture, (size.width, size.height), Image.Resampling.LANCZOS)
    return filled(picture, size) if values["resize_mode"] == _FILL else resize(picture, size)


def fill_from_surroundings(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the colours around the mask spread into it.

    What the mask covers leaves no trace. Colours are averaged over squares of pixels, twice as
    large at each level, and a level shows where the finer ones have none.
    """
    box = mask.getbbox()
    shrink = min(1.0, _COARSE / max(picture.size))
    size = (max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink)))
    colours = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)
    # Nothing of what is covered may get in, so that squares count as known only as a whole.
    known = np.asarray(mask.resize(size, Image.Resampling.BOX), np.float32)[..., None] == 0
    if box is None or not known.any():
        return picture
    weight = known.astype(np.float32)
    spread = Image.fromarray(_spread(colours * weight, weight).clip(0, 255).round().astype(np.uint8))
    across, down = size[0] / picture.width, size[1] / picture.height
    small_box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    filling = spread.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR, box=small_box)
    result = picture.copy()
    result.paste(filling, box, mask.crop(box))
    return result


def _spread(known: Array, weight: Array) -> Array:
    """Colours [h, w, 3] everywhere, of ``known`` ones times their ``weight`` [h, w, 1] from 0 to 1."""
    height, width = weight.shape[:2]
    if height == width == 1:
        return np.asarray(known / np.maximum(weight, 1e-6), np.float32)
    half = (max(1, width // 2), max(1, height // 2))
    halved, covered = (_scaled(each, half, Image.Resampling.BOX) for each in (known, weight))
    # A square counts as known as soon as a quarter of it is, so that near colours prevail.
    more = np.minimum(4.0, 1 / np.maximum(covered, 1e-6))
    coarse = _scaled(_spread(halved * more, covered * more), (width, height), Image.Resampling.BILINEAR)
    return np.asarray(known + (1 - weight) * coarse, np.float32)


def _scaled(values: Array, size: tuple[int, int], filter_: Image.Resampling) -> Array:
    channels = [Image.fromarray(np.ascontiguousarray(each)) for each in values.transpose(2, 0, 1).astype(np.float32)]
    return np.stack([np.asarray(each.resize(size, filter_)) for each in channels], axis=-1)
