"""What image to image and inpainting start from: a picture or its latents, and a mask, at a size that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families import Array, Drawing, Parts
from vinograph.families.masks import crop_box, filled, pasted, read_mask, to_mask
from vinograph.families.shared import Size, fit, whole_size
from vinograph.images import read_picture, resize, to_array
from vinograph.request import Request


@dataclass(frozen=True)
class Original:
    """What a request starts from, at the ``size`` (height, width) to draw, which may be another than is ``wanted``.

    ``picture`` [1, 3, height, width] in [0, 1], or, where the request's image is that already, ``latents``. ``mask``
    [1, 1, h, w] is 1 where to draw anew. ``paste`` puts what was drawn into the whole picture that it is a part of.
    """

    size: Size
    wanted: Size
    picture: Array | None = None
    latents: Array | None = None
    mask: Array | None = None
    paste: Callable[[Array], Array] | None = None


def original_of(
    parts: Parts, request: Request, out: Drawing, drawn: Callable[[Size], Size] | None = None
) -> Original | None:
    """The request's image and mask, if it has them, upright and at a size that the model draws.

    ``drawn`` says for a height and width at which ones a picture of that size is drawn, to be resized; None: at those
    themselves, which then are such as the model draws.
    """
    if request.image is None:
        return None
    if isinstance(request.image, np.ndarray) and request.image.ndim == 4:
        return _latents(parts, request, out)
    picture = read_picture(request.image)
    if request.padding_mask_crop is not None:
        return _cropped(parts, request, picture)
    limits = parts.limits if drawn is None else {**parts.limits, "size_multiple": 1}
    width, height = _asked(request) or whole_size(picture.size, limits)
    wanted = height, width
    size = wanted if drawn is None else drawn(wanted)
    across = (size[1], size[0])
    fitted = to_array(fit(picture, across, out))
    return Original(size, wanted, picture=fitted, mask=_mask(parts, request, picture.size, across, out))


def _latents(parts: Parts, request: Request, out: Drawing) -> Original:
    """The image is latents, as ``output_type="latent"`` gives them."""
    latents, factor = np.asarray(request.image, np.float32), parts.config["vae_scale_factor"]
    channels, count = parts.config["latent_channels"], request.image_count
    whole = latents.size > 0 and bool(np.all(np.isfinite(latents)))
    if not whole or latents.shape[1] != channels or count % len(latents):
        raise RequestError(
            f"image is an array of shape {latents.shape}; "
            f"give [height, width, 3], or latents [{count}, {channels}, height, width]"
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
    """The request's mask for latents of a picture of size ``drawn``: every so many pixels' value.

    It follows a picture from its ``own`` size without a word; if it has another one, the user should know.
    """
    if request.mask_image is None:
        return None
    mask, factor = read_mask(request.mask_image), parts.config["vae_scale_factor"]
    fitted = resize(mask, *drawn) if mask.size == own else fit(mask, drawn, out, "mask")
    return to_mask(fitted)[:, :, ::factor, ::factor]


def _cropped(parts: Parts, request: Request, picture: Image.Image) -> Original:
    """The surroundings of the mask alone, at full size, as diffusers' padding_mask_crop has it."""
    mask, factor = read_mask(request.mask_image), parts.config["vae_scale_factor"]
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
        (height, width), (height, width), picture=part, mask=drawn, paste=partial(pasted, picture, mask, box)
    )


def picture_of(parts: Parts, request: Request, out: Drawing) -> Array:
    """The request's image [1, 3, height, width] in [0, 1], at a size that the model draws."""
    picture = read_picture(request.image)
    return to_array(fit(picture, _asked(request) or whole_size(picture.size, parts.limits), out))


def _asked(request: Request) -> Size | None:
    """The width and height that were asked for."""
    return None if request.width is None or request.height is None else (request.width, request.height)
