"""Masks for inpainting: read them, crop to what they cover, and paste the result back."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from vinograph.errors import RequestError
from vinograph.families.contract import Array
from vinograph.images import MAX_PIXELS, Size, check_picture, listed, read_pictures, resize, size_of, to_pictures
from vinograph.values import as_array, is_array, is_tensor, reading

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in PIL's order."""
Mask = Image.Image | NDArray[np.bool_]
"""A picture that is light where to draw anew, or an array [height, width] that is true there."""


def read_masks(source: Any, name: str = "mask_image") -> list[Mask]:
    """Read masks from pictures in any form, or from arrays without channels.

    They mean what they mean in diffusers. The brightness of a PIL picture counts, whatever its
    mode, and its transparency doesn't. Values of an array from a half up count, whatever their
    type. An array is [height, width], [height, width, 1], [n, height, width] or [n, height, width,
    1], and a tensor [n, 1, height, width]. With three channels, an array is a picture.

    Raises:
        RequestError: the masks can't be read, for the same reasons as pictures, or hold NaN.
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
    """Masks [n, height, width] of an array, or None where it has a picture's three channels."""
    if values.ndim == 2:
        return values[None]
    if values.ndim == 3 and not tensor and values.shape[2] in (1, 3):
        return values[None, ..., 0] if values.shape[2] == 1 else None
    if values.ndim == 4:
        axis = 1 if tensor or values.shape[3] not in (1, 3) else 3
        return None if values.shape[axis] == 3 else values[:, 0] if axis == 1 else values[..., 0]
    return values


def to_mask(mask: Mask) -> Array:
    """Array [1, 1, height, width] that is 1 where the mask is light and 0 where it is dark."""
    if isinstance(mask, np.ndarray):
        return mask.astype(np.float32)[None, None]
    grey = np.asarray(_grey(mask), np.float32) / np.float32(255)
    return (grey >= 0.5).astype(np.float32)[None, None]


def mask_size(mask: Mask) -> Size:
    """Size of the mask."""
    return Size(*mask.shape) if isinstance(mask, np.ndarray) else size_of(mask)


def resized(mask: Mask, size: Size) -> Mask:
    """Resize a mask: a picture by Lanczos in its own mode, an array by its nearest values.

    That is what diffusers does before it looks at the brightness.
    """
    if not isinstance(mask, np.ndarray):
        return resize(mask, size)
    rows, columns = (
        np.minimum((np.arange(new) * np.float32(old / new)).astype(int), old - 1)
        for old, new in zip(mask.shape, size, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def as_picture(mask: Mask) -> Image.Image:
    """The mask as a PIL picture."""
    return Image.fromarray(mask.astype(np.uint8) * 255) if isinstance(mask, np.ndarray) else mask


def _grey(picture: Image.Image) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of a palette's transparency, which is left out
        return picture.convert("L")


def crop_box(mask: Image.Image, size: Size, padding: int) -> Box:
    """The box of what is not black in ``mask``, with ``padding`` pixels around it.

    The box is widened to the shape of ``size``, as far as the mask reaches. This is diffusers'
    ``get_crop_region``.

    Raises:
        RequestError: the mask is black.
    """
    found = _grey(mask).getbbox()
    if found is None:
        raise RequestError("mask_image is black everywhere: paint white what is to be drawn anew")
    left, top = (max(side - padding, 0) for side in found[:2])
    right, bottom = (min(side + padding, end) for side, end in zip(found[2:], mask.size, strict=True))
    shape = size.width / size.height
    if (right - left) / (bottom - top) > shape:
        top, bottom = _widened(top, bottom, (right - left) / shape, mask.height)
    else:
        left, right = _widened(left, right, (bottom - top) * shape, mask.width)
    return left, top, right, bottom


def _widened(first: int, last: int, wanted: float, end: int) -> tuple[int, int]:
    """Stretch a span about its middle to the length ``wanted``, within 0 and ``end``."""
    more = int(wanted - (last - first))
    first, last = first - more // 2, last + more - more // 2
    beyond = max(last - end, 0)
    first, last = first - beyond, last - beyond
    return max(first, 0), min(last - min(first, 0), end)


def filled(picture: Image.Image, size: Size) -> Image.Image:
    """Fit the picture into ``size`` without distortion, and stretch its edges over the rest.

    This is the resize mode "fill" of diffusers' image processor.
    """
    height, width = size
    inner = _within(picture, size)
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


def _within(picture: Image.Image, size: Size) -> Image.Image:
    wide = picture.width * size.height > size.width * picture.height
    return resize(picture, _keeping_shape(picture, size, fit_width=wide))


def _keeping_shape(picture: Image.Image, size: Size, *, fit_width: bool) -> Size:
    """The picture's size, scaled to the width or the height of ``size``. No side vanishes."""
    if fit_width:
        return Size(max(picture.height * size.width // picture.width, 1), size.width)
    return Size(size.height, max(picture.width * size.height // picture.height, 1))


def pasted(picture: Image.Image, mask: Image.Image, box: Box, drawn: Array) -> Array:
    """Paste each of ``drawn`` [n, h, w, 3] into ``box`` of ``picture``, where ``mask`` is light.

    The result [n, height, width, 3] is of the picture's size.
    """
    keep = ImageChops.invert(_grey(mask))
    results = []
    for each in to_pictures(drawn):
        whole = Image.new("RGB", picture.size)
        whole.paste(_covering(each, Size(box[3] - box[1], box[2] - box[0])), box[:2])
        whole.paste(picture, mask=keep)
        results.append(np.asarray(whole, np.float32) / np.float32(255))
    return np.stack(results)


def _covering(picture: Image.Image, size: Size) -> Image.Image:
    """Scale the picture to cover ``size`` without distorting it, and cut off what lies beyond."""
    tall = picture.width * size.height < size.width * picture.height
    scaled = resize(picture, _keeping_shape(picture, size, fit_width=tall))
    whole = Image.new("RGB", (size.width, size.height))
    whole.paste(scaled, (size.width // 2 - scaled.width // 2, size.height // 2 - scaled.height // 2))
    return whole
