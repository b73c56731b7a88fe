"""Outpainting: enlarge a picture by a border, and draw what lies there by inpainting.

The border begins with the colours of the picture's edges. It is masked together with a strip of the
picture along it, the overlap, where old and new are blended. The rest of the picture keeps its own
pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from vinograph.errors import RequestError
from vinograph.families.autoencoder import HasLatents
from vinograph.families.contract import Array, Components, Output, Steps
from vinograph.families.init_image import open_init_images
from vinograph.families.inpainting import Mask, mask_size, read_masks, resized, to_mask
from vinograph.families.shared import fit, note_resized, requested_size
from vinograph.families.sizes import SizeLimits
from vinograph.images import Size, size_of

Borders = tuple[int, int, int, int]
"""Widths of the left, top, right and bottom border, in pixels."""
Draw = Callable[[Components[Any], Any], Steps]

_OVERLAPS = 8  # the overlap is at most this part of the model's native size: below, seams show


@dataclass(frozen=True)
class Layout:
    """Where the picture, of the size ``inner``, lies in the enlarged one.

    ``overlap`` is the largest width of the strips along the ``borders`` that are drawn anew, too.
    """

    inner: Size
    borders: Borders
    overlap: int

    @property
    def size(self) -> Size:
        """Size of the enlarged picture."""
        left, top, right, bottom = self.borders
        return Size(self.inner.height + top + bottom, self.inner.width + left + right)

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the picture in an array of the enlarged one."""
        left, top, _, _ = self.borders
        return slice(top, top + self.inner.height), slice(left, left + self.inner.width)

    @property
    def kept(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that lie within the overlap."""
        down, across = (self._kept(axis) for axis in range(2))
        return down, across

    def _kept(self, axis: int) -> slice:
        side, ends = self.inner[axis], (self.borders[1 - axis], self.borders[3 - axis])
        first, last = (min(self.overlap, border // 2, side // 4) for border in ends)
        return slice(first, side - last)


def with_extension(draw: Draw) -> Draw:
    """The call ``draw`` of a family, which draws around a picture where the request says ``extend``."""

    def run(components: Components[Any], request: Any) -> Steps:
        return draw(components, request) if request.extend is None else _extended(draw, components, request)

    return run


def lay_out(sizes: SizeLimits, picture: Size, borders: Borders, size: Size | None = None) -> Layout:
    """Lay a picture and its ``borders`` out, in ``size`` or else at a size that the model draws.

    Without ``size``, the picture keeps its own, but for what the model's limits and multiples take
    away.

    Raises:
        RequestError: the borders leave no room for the picture.
    """
    left, top, right, bottom = borders
    step, most = sizes.size_multiple, size or Size(sizes.maximum_size, sizes.maximum_size)
    room = Size(most.height - top - bottom, most.width - left - right)
    if min(room) < step:
        raise RequestError(
            f"extend is {','.join(map(str, borders))}, which leaves no room for the picture in {most}; add at most "
            f"{most.width - step} pixels in width and {most.height - step} in height"
        )
    if size is None:
        shrink = min(1.0, room.height / picture.height, room.width / picture.width)
        sides = (max(int(side * shrink) // step * step, sizes.minimum_size) for side in picture)
        room = Size(*(min(side, free) for side, free in zip(sides, room, strict=True)))
    return Layout(room, borders, sizes.native_size // _OVERLAPS)


def enlarge(picture: Image.Image, layout: Layout) -> Image.Image:
    """The RGB picture, of the layout's inner size, with its edges stretched over the borders.

    What is drawn from stretched edges at a strength below 1 doubles less of the picture than what
    is drawn from mirrored ones.
    """
    left, top, right, bottom = layout.borders
    return Image.fromarray(np.pad(np.asarray(picture), ((top, bottom), (left, right), (0, 0)), "edge"))


def border_mask(layout: Layout, inner: Mask | None = None) -> Image.Image:
    """The mask of the borders and the overlap, in grey; and of what ``inner`` masks in the picture."""
    drawn = np.ones(layout.inner, np.float32)
    drawn[layout.kept] = 0
    if inner is not None:
        drawn = np.maximum(drawn, to_mask(resized(inner, layout.inner))[0, 0])
    mask = np.ones(layout.size, np.float32)
    mask[layout.inside] = drawn
    return Image.fromarray((mask * 255).astype(np.uint8))


def _extended(draw: Draw, components: Components[HasLatents], request: Any) -> Steps:
    """Check the request, and return the generator that draws around its picture."""
    for name in ("padding_mask_crop", "latents"):
        if getattr(request, name) is not None:
            raise RequestError(f"give extend or {name}, not both")
    out = Output()
    pictures = open_init_images(request, out)
    layout = lay_out(components.sizes, size_of(pictures[0]), request.extend, requested_size(request))
    enlarged = [enlarge(fit(each, layout.inner, out), layout) for each in pictures]
    masks = [border_mask(layout, each) for each in _inner_masks(request, size_of(pictures[0]), layout, out)]
    steps = draw(
        components,
        dataclasses.replace(
            request,
            extend=None,
            image=enlarged,
            mask_image=masks,
            height=layout.size.height,
            width=layout.size.width,
        ),
    )
    return _pasted(steps, enlarged, [_blending(each, layout) for each in masks], out.warnings)


def _inner_masks(request: Any, picture: Size, layout: Layout, out: Output) -> Sequence[Mask | None]:
    """The request's own masks, which are of the picture without its border."""
    if request.mask_image is None:
        return [None]
    masks = read_masks(request.mask_image)
    for each in masks:
        if mask_size(each) not in (picture, layout.inner):
            note_resized(mask_size(each), layout.inner, out, "mask")
    return masks


def _blending(mask: Image.Image, layout: Layout) -> Array:
    """The share of what was drawn in each pixel [height, width, 1]: all of the borders, none of what is kept.

    Within the picture it rises from the mask's edge inwards.
    """
    soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(layout.overlap / 4)), np.float32) / np.float32(255)
    rising = np.clip(2 * soft - 1, 0, 1) * (np.asarray(mask) > 0)  # blurred, an edge is at a half
    share = np.ones((*layout.size, 1), np.float32)
    share[layout.inside] = rising[layout.inside][..., None]
    return share


def _pasted(steps: Steps, pictures: Sequence[Image.Image], shares: Sequence[Array], warnings: list[str]) -> Steps:
    """Blend the pixels that were kept over what ``steps`` draw."""
    with closing(steps):
        out = yield from steps
    out.warnings[:0] = warnings
    if out.images is not None:
        kept = [np.asarray(each, np.float32) / np.float32(255) for each in pictures]
        rows = zip(out.images, cycle(kept), cycle(shares), strict=False)
        out.images = np.stack([each * share + picture * (1 - share) for each, picture, share in rows])
    return out
