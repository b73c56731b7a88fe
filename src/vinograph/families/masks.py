"""Masks for inpainting: reading them, working on their surroundings alone, and putting the result back."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageChops

from vinograph.errors import RequestError
from vinograph.families import Array
from vinograph.images import read_picture, resize, to_pictures

Box = tuple[int, int, int, int]


def read_mask(source: Any, name: str = "mask_image") -> Image.Image:
    """A mask: what :func:`vinograph.images.read_picture` takes, or an array [height, width] or [height, width, 1].

    Raises:
        RequestError: as there.
    """
    if isinstance(source, np.ndarray):
        source = source.astype(np.uint8) * 255 if source.dtype == np.bool_ else source
        source = source[..., None] if source.ndim == 2 else source
        source = np.repeat(source, 3, axis=2) if source.ndim == 3 and source.shape[2] == 1 else source
    return read_picture(source, name)


def to_mask(picture: Image.Image) -> Array:
    """1 where the picture is light, 0 where it is dark, shape [1, 1, height, width]."""
    grey = np.asarray(picture.convert("L"), np.float32) / np.float32(255)
    return (grey >= 0.5).astype(np.float32)[None, None]


def crop_box(mask: Image.Image, size: tuple[int, int], padding: int) -> Box:
    """Left, top, right and bottom of what is not black in ``mask``, with ``padding`` pixels around it.

    It is widened to the shape of ``size`` (width, height) as far as the mask goes: equal to diffusers'
    ``get_crop_region``.

    Raises:
        RequestError: the mask is black.
    """
    found = mask.convert("L").getbbox()
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
    return resize(picture, *inner)


def pasted(picture: Image.Image, mask: Image.Image, box: Box, drawn: Array) -> Array:
    """Each of ``drawn`` [n, h, w, 3], scaled to fill ``box`` of ``picture``, where ``mask`` is light.

    The result is of the picture's size.
    """
    keep = ImageChops.invert(mask.convert("L"))
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
    scaled = resize(picture, *outer)
    whole = Image.new("RGB", (width, height))
    whole.paste(scaled, (width // 2 - scaled.width // 2, height // 2 - scaled.height // 2))
    return whole
