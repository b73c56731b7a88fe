"""Masks for inpainting: reading them, working on their surroundings alone, and putting the result back."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from vinograph.errors import RequestError
from vinograph.families.contract import Array
from vinograph.images import MAX_PIXELS, check_picture, listed, read_pictures, resize, to_pictures
from vinograph.values import as_array, is_array, is_tensor, reading

Box = tuple[int, int, int, int]
Mask = Image.Image | NDArray[np.bool_]
"""A picture, light where to draw anew, or an array [height, width] that is true there."""


def read_masks(source: Any, name: str = "mask_image") -> list[Mask]:
    """Masks from what :func:`vinograph.images.read_pictures` takes, or from arrays without channels.

    They mean what they mean in diffusers. Of a PIL picture the brightness counts, whatever its mode; transparency is
    left out. Of an array each value counts from a half up, of whatever type: [height, width], [height, width, 1],
    [n, height, width] or [n, height, width, 1], and of a tensor [n, 1, height, width]. Three channels are a picture.

    Raises:
        RequestError: as there.
    """
    with reading(name, source):
        return [mask for each in listed(source, name) for mask in _read(each, name)]


def _read(source: Any, name: str) -> list[Mask]:
    if isinstance(source, Image.Image):
        check_picture(source, name)
        return [source.convert("LA") if source.mode == "La" else source]
    if not is_array(source):
        return list(read_pictures(source, name))
    values = _without_channels(as_array(source), tensor=is_tensor(source))
    if values is None:
        return list(read_pictures(source, name))
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "biuf":
        raise RequestError(
            f"{name} is an array of {values.dtype}, shape {values.shape}; give numbers [height, width] or "
            "[n, height, width]"
        )
    if values.size > MAX_PIXELS:
        raise RequestError(f"{name} has shape {values.shape}, over {MAX_PIXELS // 1_000_000} megapixels")
    if not np.all(np.isfinite(values)):
        raise RequestError(f"{name} holds NaN or infinity")
    return list(values >= 0.5)


def _without_channels(values: NDArray[Any], *, tensor: bool) -> NDArray[Any] | None:
    """An array of masks as [n, height, width]; None where it has the three channels of a picture."""
    if values.ndim == 2:
        return values[None]
    if values.ndim == 3 and not tensor and values.shape[2] in (1, 3):
        return values[None, ..., 0] if values.shape[2] == 1 else None
    if values.ndim == 4:
        axis = 1 if tensor or values.shape[3] not in (1, 3) else 3
        return None if values.shape[axis] == 3 else values[:, 0] if axis == 1 else values[..., 0]
    return values


def to_mask(mask: Mask) -> Array:
    """1 where the mask is light, 0 where it is dark, shape [1, 1, height, width]."""
    if isinstance(mask, np.ndarray):
        return mask.astype(np.float32)[None, None]
    grey = np.asarray(_grey(mask), np.float32) / np.float32(255)
    return (grey >= 0.5).astype(np.float32)[None, None]


def mask_size(mask: Mask) -> tuple[int, int]:
    """Width and height."""
    return (mask.shape[1], mask.shape[0]) if isinstance(mask, np.ndarray) else mask.size


def resized(mask: Mask, width: int, height: int) -> Mask:
    """The mask at another size: a picture by Lanczos in its own mode, an array by its nearest values.

    That is what diffusers does before it looks at the brightness.
    """
    if not isinstance(mask, np.ndarray):
        return resize(mask, width, height)
    rows, columns = (
        np.minimum((np.arange(new) * np.float32(old / new)).astype(int), old - 1)
        for old, new in zip(mask.shape, (height, width), strict=True)
    )
    return mask[np.ix_(rows, columns)]


def as_picture(mask: Mask) -> Image.Image:
    """The mask as a PIL picture."""
    return Image.fromarray(mask.astype(np.uint8) * 255) if isinstance(mask, np.ndarray) else mask


def _grey(picture: Image.Image) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of a palette's transparency, which is left out
        return picture.convert("L")


def crop_box(mask: Image.Image, size: tuple[int, int], padding: int) -> Box:
    """Left, top, right and bottom of what is not black in ``mask``, with ``padding`` pixels around it.

    It is widened to the shape of ``size`` (width, height) as far as the mask goes: equal to diffusers'
    ``get_crop_region``.

    Raises:
        RequestError: the mask is black.
    """
    found = _grey(mask).getbbox()
    if found is None:
        raise RequestError("mask_image is black everywhere: paint white what is to be drawn anew")
    left, top = (max(side - padding, 0) for side in found[:2])
    right, bottom = (min(side + padding, end) for side, end in zip(found[2:], mask.size, strict=True))
    shape = size[0] / size[1]
    if (right - left) / (bottom - top) > shape:
        top, bottom = _widened(top, bottom, (right - left) / shape, mask.height)
    else:
        left, right = _widened(left, right, (bottom - top) * shape, mask.width)
    return left, top, right, bottom


def _widened(first: int, last: int, wanted: float, end: int) -> tuple[int, int]:
    """``first`` to ``last``, made ``wanted`` long about its middle and moved to lie within 0 and ``end``."""
    more = int(wanted - (last - first))
    first, last = first - more // 2, last + more - more // 2
    beyond = max(last - end, 0)
    first, last = first - beyond, last - beyond
    return max(first, 0), min(last - min(first, 0), end)


def filled(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture within ``width`` and ``height`` in its own shape; its edges are drawn out over what is left.

    Equal to the resize mode "fill" of diffusers' image processor.
    """
    inner = _within(picture, width, height)
    left, top = width // 2 - inner.width // 2, height // 2 - inner.height // 2
    whole = Image.new("RGB", (width, height))
    whole.paste(inner, (left, top))
    if inner.width == width and top > 0:
        for edge, at in ((0, 0), (inner.height, top + inner.height)):
            whole.paste(inner.resize((width, top), box=(0, edge, width, edge)), (0, at))
    elif left > 0:
        for edge, at in ((0, 0), (inner.width, left + inner.width)):
            whole.paste(inner.resize((left, height), box=(edge, 0, edge, height)), (at, 0))
    return whole


def _within(picture: Image.Image, width: int, height: int) -> Image.Image:
    wide = picture.width * height > width * picture.height
    inner = (
        (width, picture.height * width // picture.width) if wide else (picture.width * height // picture.height, height)
    )
    return resize(picture, max(inner[0], 1), max(inner[1], 1))  # of a very long one, a line is left


def pasted(picture: Image.Image, mask: Image.Image, box: Box, drawn: Array) -> Array:
    """Each of ``drawn`` [n, h, w, 3], scaled to fill ``box`` of ``picture``, where ``mask`` is light.

    The result is of the picture's size.
    """
    keep = ImageChops.invert(_grey(mask))
    results = []
    for each in to_pictures(drawn):
        whole = Image.new("RGB", picture.size)
        whole.paste(_covering(each, box[2] - box[0], box[3] - box[1]), box[:2])
        whole.paste(picture, mask=keep)
        results.append(np.asarray(whole, np.float32) / np.float32(255))
    return np.stack(results)


def _covering(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture in its own shape, its middle ``width`` by ``height``."""
    tall = picture.width * height < width * picture.height
    outer = (
        (width, picture.height * width // picture.width) if tall else (picture.width * height // picture.height, height)
    )
    scaled = resize(picture, max(outer[0], 1), max(outer[1], 1))
    whole = Image.new("RGB", (width, height))
    whole.paste(scaled, (width // 2 - scaled.width // 2, height // 2 - scaled.height // 2))
    return whole
