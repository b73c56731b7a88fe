"""What image to image and inpainting start from: a picture or its latents, and a mask, at a size that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Drawing, Parts
from vinograph.families.masks import as_picture, crop_box, filled, mask_size, pasted, read_masks, resized, to_mask
from vinograph.families.shared import Size, fit, note_resized, whole_size
from vinograph.images import listed, only, read_pictures, to_array
from vinograph.request import Request
from vinograph.values import MAX_VALUES, as_array, is_array, reading


@dataclass(frozen=True)
class Original:
    """What a request starts from, at the ``size`` (height, width) to draw, which may be another than is ``wanted``.

    ``pictures`` [n, 3, height, width] in [0, 1], or, where the request's image is that already, ``latents``. ``mask``
    [1 or as many as are drawn, 1, h, w] is 1 where to draw anew. ``paste`` puts what was drawn into the whole picture
    that it is a part of.
    """

    size: Size
    wanted: Size
    pictures: Array | None = None
    latents: Array | None = None
    mask: Array | None = None
    paste: Callable[[Array], Array] | None = None


def original_of(
    parts: Parts, request: Request, out: Drawing, drawn: Callable[[Size], Size] | None = None
) -> Original | None:
    """The request's images and masks, if it has them, at a size that the model draws.

    ``drawn`` says for a height and width at which ones a picture of that size is drawn, to be resized; None: at those
    themselves, which then are such as the model draws. Several pictures are drawn at the size of the first.

    Raises:
        RequestError: they can't be read, or their number doesn't go into that of the pictures to draw.
    """
    if request.image is None:
        return None
    latents = _given_latents(parts, request)
    if latents is not None:
        return _from_latents(parts, request, latents, out)
    pictures = pictures_of(request, out)
    if request.padding_mask_crop is not None:
        return _cropped(parts, request, only(pictures, "with padding_mask_crop, image"))
    limits = parts.limits if drawn is None else {**parts.limits, "size_multiple": 1}
    width, height = _asked(request) or whole_size(pictures[0].size, limits)
    wanted = height, width
    size = wanted if drawn is None else drawn(wanted)
    across = (size[1], size[0])
    fitted = np.concatenate([to_array(fit(each, across, out)) for each in pictures])
    return Original(size, wanted, pictures=fitted, mask=_mask(parts, request, pictures[0].size, across, out))


def pictures_of(request: Request, out: Drawing) -> list[Image.Image]:
    """The request's images, whose number goes into that of the pictures to draw.

    Raises:
        RequestError: they can't be read, or are too many or too few.
    """
    if (given := len(listed(request.image, "image"))) > request.image_count:
        _check_count("image", given, request)  # before so many are read
    pictures = read_pictures(request.image, notes=out.warnings)
    _check_count("image", len(pictures), request)
    return pictures


def _check_count(name: str, given: int, request: Request) -> None:
    if request.image_count % given:
        raise RequestError(
            f"{name} holds {given} pictures for {request.image_count} to draw; give one, or as many, "
            "or a number that goes into it"
        )


def _given_latents(parts: Parts, request: Request) -> Array | None:
    """The request's image where it is latents, as ``output_type="latent"`` gives them: one array, or a list."""
    with reading("image", request.image):
        several = isinstance(request.image, (list, tuple)) and len(request.image) > 0
        items = request.image if several else (request.image,)
        if not all(is_array(each) for each in items):
            return None
        arrays = [as_array(each) for each in items]
        channels = parts.config["latent_channels"]
        if any(each.ndim not in ((3, 4) if several else (4,)) for each in arrays):
            return None
        batched = [each[None] if each.ndim == 3 else each for each in arrays]
        if any(each.shape[1] != channels or each.shape[3] == 3 for each in batched):
            return None
        if any(each.dtype.kind not in "biuf" or each.shape[1:] != batched[0].shape[1:] for each in batched):
            raise RequestError("image is latents of different shapes, or no numbers; give one array")
        if sum(each.size for each in batched) > MAX_VALUES:
            raise RequestError(f"image is latents of over {MAX_VALUES:,} numbers; give fewer")
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinity, which is refused
            return np.concatenate([each.astype(np.float32) for each in batched])


def _from_latents(parts: Parts, request: Request, latents: Array, out: Drawing) -> Original:
    factor, count = parts.config["vae_scale_factor"], request.image_count
    whole = latents.size > 0 and bool(np.all(np.isfinite(latents)))
    if not whole or count % len(latents):
        raise RequestError(
            f"image is latents of shape {latents.shape}; "
            f"give finite ones, [{count}, {parts.config['latent_channels']}, height, width]"
        )
    size = latents.shape[2] * factor, latents.shape[3] * factor
    if request.padding_mask_crop is not None or (request.height, request.width) not in ((None, None), size):
        raise RequestError(f"an image of latents is drawn at its own size, {size[1]}x{size[0]}, without a crop")
    step, low, high = (parts.limits[key] for key in ("size_multiple", "minimum_size", "maximum_size"))
    if any(side % step or not low <= side <= high for side in size):
        raise RequestError(
            f"image is latents of {size[1]}x{size[0]} pixels; this model draws multiples of {step} from {low} to {high}"
        )
    across = (size[1], size[0])
    return Original(size, size, latents=latents, mask=_mask(parts, request, across, across, out))


def _mask(parts: Parts, request: Request, own: Size, drawn: Size, out: Drawing) -> Array | None:
    """The request's masks for latents of pictures of size ``drawn``: every so many pixels' value.

    They follow a picture from its ``own`` size without a word; if one has another size, the user should know.
    """
    if request.mask_image is None:
        return None
    masks, factor = read_masks(request.mask_image), parts.config["vae_scale_factor"]
    _check_count("mask_image", len(masks), request)
    for each in masks:
        if mask_size(each) not in (own, drawn):
            note_resized(mask_size(each), drawn, out, "mask")
    fitted = [to_mask(resized(each, *drawn))[:, :, ::factor, ::factor] for each in masks]
    return np.tile(np.concatenate(fitted), (request.image_count // len(fitted) if len(fitted) > 1 else 1, 1, 1, 1))


def _cropped(parts: Parts, request: Request, picture: Image.Image) -> Original:
    """The surroundings of the mask alone, at full size, as diffusers' padding_mask_crop has it."""
    masks = read_masks(request.mask_image)
    mask, factor = as_picture(only(masks, "with padding_mask_crop, mask_image")), parts.config["vae_scale_factor"]
    if mask.size != picture.size:
        raise RequestError(
            f"mask_image is {mask.width}x{mask.height} and image {picture.width}x{picture.height}; "
            "with padding_mask_crop they have to be of one size"
        )
    width, height = _asked(request) or (parts.limits["native_size"],) * 2
    box = crop_box(mask, (width, height), request.padding_mask_crop or 0)
    part = to_array(filled(picture.crop(box), width, height))
    drawn = to_mask(filled(mask.crop(box), width, height))[:, :, ::factor, ::factor]
    return Original(
        (height, width), (height, width), pictures=part, mask=drawn, paste=partial(pasted, picture, mask, box)
    )


def picture_of(parts: Parts, request: Request, out: Drawing) -> Array:
    """The request's one image [1, 3, height, width] in [0, 1], at a size that the model draws."""
    picture = only(read_pictures(request.image, notes=out.warnings), "image")
    return to_array(fit(picture, _asked(request) or whole_size(picture.size, parts.limits), out))


def _asked(request: Request) -> Size | None:
    """The width and height that were asked for."""
    return None if request.width is None or request.height is None else (request.width, request.height)
