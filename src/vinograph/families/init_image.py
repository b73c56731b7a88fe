"""Init images: what image to image and inpainting start from, with their masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families.autoencoder import HasLatents
from vinograph.families.contract import Array, Components, Output
from vinograph.families.inpainting import (
    as_picture,
    crop_box,
    filled,
    mask_size,
    pasted,
    read_masks,
    resized,
    to_mask,
)
from vinograph.families.shared import fit, note_resized, requested_size
from vinograph.images import Size, listed, only, read_pictures, size_of, to_array
from vinograph.request import Request
from vinograph.values import MAX_VALUES, as_array, is_array, reading


@dataclass(frozen=True)
class InitImage:
    """The picture that a request starts from, at the ``size`` to draw.

    It is given by ``pictures`` [n, 3, height, width] in [0, 1], or by ``latents`` where the
    request's image is that already. ``output_size`` is the size of the result, which may be another
    than the one drawn. ``mask`` [1 or as many as are drawn, 1, h, w] is 1 where to draw anew, and
    ``pixel_mask`` the same at the pictures' size.
    ``paste`` puts the result back into the picture that this one was cut from.
    """

    size: Size
    output_size: Size
    pictures: Array | None = None
    latents: Array | None = None
    mask: Array | None = None
    pixel_mask: Array | None = None
    paste: Callable[[Array], Array] | None = None


def read_init_image(
    components: Components[HasLatents], request: Request, out: Output, drawn_size: Callable[[Size], Size] | None = None
) -> InitImage | None:
    """Read the request's images and masks, if it has them, at a size that the model draws.

    ``drawn_size`` maps the size of the result to the size to draw, which is then resized. Without
    it both are the same, and such as the model draws. Several pictures are drawn at the size of the
    first.

    Raises:
        RequestError: they can't be read, or their number doesn't go into that of the pictures to
            draw.
    """
    if request.image is None:
        return None
    latents = _given_latents(components, request)
    if latents is not None:
        return _from_latents(components, request, latents, out)
    pictures = open_init_images(request, out)
    if request.padding_mask_crop is not None:
        return _cropped_to_mask(components, request, only(pictures, "with padding_mask_crop, image"))
    sizes = components.sizes if drawn_size is None else dataclasses.replace(components.sizes, size_multiple=1)
    output_size = requested_size(request) or sizes.within(size_of(pictures[0]))
    size = output_size if drawn_size is None else drawn_size(output_size)
    fitted = np.concatenate([to_array(fit(each, size, out)) for each in pictures])
    pixel_mask = _pixel_mask(request, size_of(pictures[0]), size, out)
    mask = _latent_mask(components, pixel_mask)
    return InitImage(size, output_size, pictures=fitted, mask=mask, pixel_mask=pixel_mask)


def open_init_images(request: Request, out: Output) -> list[Image.Image]:
    """Read the request's images, whose number goes into that of the pictures to draw.

    Raises:
        RequestError: they can't be read, or there are too many or too few.
    """
    if (given := len(listed(request.image, "image"))) > request.image_count:
        _check_divides_count("image", given, request)  # before so many are read
    pictures = read_pictures(request.image, notes=out.warnings)
    _check_divides_count("image", len(pictures), request)
    return pictures


def read_one_picture(components: Components[HasLatents], request: Request, out: Output) -> Array:
    """Read the request's one image [1, 3, height, width] in [0, 1] at a size that is drawn."""
    picture = only(read_pictures(request.image, notes=out.warnings), "image")
    return to_array(fit(picture, requested_size(request) or components.sizes.within(size_of(picture)), out))


def _check_divides_count(name: str, given: int, request: Request) -> None:
    if request.image_count % given:
        raise RequestError(
            f"{name} holds {given} pictures for {request.image_count} to draw; give one, or as many, "
            "or a number that goes into it"
        )


def _given_latents(components: Components[HasLatents], request: Request) -> Array | None:
    """Latents that the request gives as its image, in one array or a list, or else None."""
    with reading("image", request.image):
        several = isinstance(request.image, (list, tuple)) and len(request.image) > 0
        items = request.image if several else (request.image,)
        if not all(is_array(each) for each in items):
            return None
        arrays = [as_array(each) for each in items]
        channels = components.config.latents.channels
        if any(each.ndim not in ((3, 4) if several else (4,)) for each in arrays):
            return None
        batched = [each[None] if each.ndim == 3 else each for each in arrays]
        # Three in the last axis are the channels of pictures, whatever the first axes look like.
        if any(each.shape[1] != channels or each.shape[3] == 3 for each in batched):
            return None
        if any(each.dtype.kind not in "biuf" or each.shape[1:] != batched[0].shape[1:] for each in batched):
            raise RequestError("image is latents of different shapes, or no numbers; give one array")
        if sum(each.size for each in batched) > MAX_VALUES:
            raise RequestError(f"image is latents of over {MAX_VALUES:,} numbers; give fewer")
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinity, which is refused
            return np.concatenate([each.astype(np.float32) for each in batched])


def _from_latents(components: Components[HasLatents], request: Request, latents: Array, out: Output) -> InitImage:
    config, sizes, count = components.config.latents, components.sizes, request.image_count
    finite = latents.size > 0 and bool(np.all(np.isfinite(latents)))
    if not finite or count % len(latents):
        raise RequestError(
            f"image is latents of shape {latents.shape}; give finite ones, [{count}, {config.channels}, height, width]"
        )
    size = Size(latents.shape[2] * config.scale_factor, latents.shape[3] * config.scale_factor)
    if request.padding_mask_crop is not None or (request.height, request.width) not in ((None, None), size):
        raise RequestError(f"an image of latents is drawn at its own size, {size}, without a crop")
    if not sizes.allows(size):
        raise RequestError(
            f"image is latents of {size} pixels; this model draws multiples of {sizes.size_multiple} "
            f"from {sizes.minimum_size} to {sizes.maximum_size}"
        )
    pixel_mask = _pixel_mask(request, size, size, out)
    mask = _latent_mask(components, pixel_mask)
    return InitImage(size, size, latents=latents, mask=mask, pixel_mask=pixel_mask)


def _pixel_mask(request: Request, picture_size: Size, size: Size, out: Output) -> Array | None:
    """The request's masks [1 or as many as are drawn, 1, height, width] for pictures of ``size``.

    Masks of the picture's own size follow it without a word. Of any other, the user should know.
    """
    if request.mask_image is None:
        return None
    masks = read_masks(request.mask_image)
    _check_divides_count("mask_image", len(masks), request)
    for each in masks:
        if mask_size(each) not in (picture_size, size):
            note_resized(mask_size(each), size, out, "mask")
    fitted = np.concatenate([to_mask(resized(each, size)) for each in masks])
    return np.tile(fitted, (request.image_count // len(masks) if len(masks) > 1 else 1, 1, 1, 1))


def _latent_mask(components: Components[HasLatents], pixel_mask: Array | None) -> Array | None:
    """The mask of the latents. As in diffusers, a mask shrinks by its nearest values: every factor-th one."""
    factor = components.config.latents.scale_factor
    return None if pixel_mask is None else pixel_mask[:, :, ::factor, ::factor]


def _cropped_to_mask(components: Components[HasLatents], request: Request, picture: Image.Image) -> InitImage:
    """The surroundings of the mask alone, at full size: diffusers' ``padding_mask_crop``."""
    masks = read_masks(request.mask_image)
    mask = as_picture(only(masks, "with padding_mask_crop, mask_image"))
    native = components.sizes.native_size
    if mask.size != picture.size:
        raise RequestError(
            f"mask_image is {size_of(mask)} and image {size_of(picture)}; "
            "with padding_mask_crop they have to be of one size"
        )
    size = requested_size(request) or Size(native, native)
    box = crop_box(mask, size, request.padding_mask_crop or 0)
    part = to_array(filled(picture.crop(box), size))
    part_mask = to_mask(filled(mask.crop(box), size))
    paste = partial(pasted, picture, mask, box)
    return InitImage(
        size, size, pictures=part, mask=_latent_mask(components, part_mask), pixel_mask=part_mask, paste=paste
    )
