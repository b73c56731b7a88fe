"""Hires fix: draw a picture, upscale it, and draw from that at the larger size.

Models draw best at the size that they were trained on. A larger picture gets its composition from a
drawing at that size, and its detail from image to image at the larger one. Both calls by hand give
the same picture to the bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from contextlib import closing
from typing import Any

import numpy as np
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families.autoencoder import HasLatents
from vinograph.families.contract import Array, Components, Output, Steps
from vinograph.families.interpolation import resized_bilinearly
from vinograph.families.latent_request import HIRES, LatentRequest
from vinograph.images import Size, resize, to_pictures
from vinograph.request import fewest_steps

Draw = Callable[[Components[Any], Any], Steps]

_LATENT = "latent"
_OF_FIRST = ("latents", "timesteps", "sigmas")


def with_hires(draw: Draw, second: Collection[tuple[str, Any]] = (), excludes: Collection[str] = ()) -> Draw:
    """The call ``draw`` of a family, which draws twice where the request says ``hires``.

    ``second`` are arguments of the second drawing that differ. Arguments that ``excludes`` names
    make no sense with two drawings.
    """

    def run(components: Components[Any], request: Any) -> Steps:
        if request.hires is None or request.hires == 1:
            return draw(components, dataclasses.replace(request, **dict.fromkeys(HIRES)))
        for name in ("image", *excludes):
            if getattr(request, name) is not None:
                raise RequestError(
                    f"give hires or {name}, not both: hires draws from a text first. From an image, draw at a larger "
                    "height and width"
                )
        return _checked(draw, components, request, dict(second))

    return run


def _checked(draw: Draw, components: Components[Any], request: LatentRequest, others: dict[str, Any]) -> Steps:
    """Check both drawings, the second with an empty picture, and return the generator that draws."""
    size = _larger(components, request)
    without: dict[str, Any] = dict.fromkeys(HIRES)
    first = dataclasses.replace(request, **without, output_type=_LATENT if request.hires_upscaler == _LATENT else "np")
    second = dataclasses.replace(
        request,
        **{**without, **dict.fromkeys(_OF_FIRST), **others},
        height=size.height,
        width=size.width,
        strength=request.hires_strength,
        num_inference_steps=_second_steps(request),
    )
    draw(components, dataclasses.replace(second, image=_empty(components, request, size))).close()
    return _drawn_twice(draw, components, draw(components, first), second)


def _larger(components: Components[Any], request: LatentRequest) -> Size:
    """The size of the second drawing, cut to a multiple that the model draws.

    Raises:
        RequestError: the model doesn't draw it.
    """
    sizes, factor = components.sizes, request.hires or 1.0
    step, given = sizes.size_multiple, Size(request.height or 0, request.width or 0)
    size = Size(*(int(side * factor) // step * step for side in given))
    if not sizes.allows(size):
        most = math.floor(100 * sizes.maximum_size / max(given)) / 100
        raise RequestError(
            f"hires is {factor:g}, which makes {size} of {given}; this model draws up to {sizes.maximum_size} a side: "
            f"give at most {most:g}, or a smaller height and width"
        )
    return size


def _second_steps(request: LatentRequest) -> int:
    """``hires_steps``, or else as many as the first drawing's, but enough for one to be left."""
    if request.hires_steps is not None:
        return request.hires_steps
    return max(request.num_inference_steps or 1, fewest_steps(request.hires_strength or 1.0) or 1)


def _empty(components: Components[HasLatents], request: LatentRequest, size: Size) -> Any:
    if request.hires_upscaler == _LATENT:
        return np.zeros(components.config.latents.shape(1, size), np.float32)
    return Image.new("RGB", (size.width, size.height))


def _drawn_twice(draw: Draw, components: Components[Any], steps: Steps, second: LatentRequest) -> Steps:
    first = yield from steps
    with first.timed("upscale"):
        image = _upscaled(components, first, Size(second.height or 0, second.width or 0))
    out = yield from _as_second(draw(components, dataclasses.replace(second, image=image)))
    out.upscaled = True
    out.timings = {**first.timings, **{f"hires {stage}": seconds for stage, seconds in out.timings.items()}}
    out.warnings = [*first.warnings, *(each for each in out.warnings if each not in first.warnings)]
    return out


def _upscaled(components: Components[HasLatents], first: Output, size: Size) -> list[Image.Image] | Array:
    """The first drawing at ``size``: pictures by Lanczos, latents bilinearly."""
    if first.images is not None:
        return [resize(each, size) for each in to_pictures(first.images)]
    assert first.latents is not None
    _, _, *grid = components.config.latents.shape(1, size)
    return resized_bilinearly(first.latents, Size(*grid))


def _as_second(steps: Steps) -> Steps:
    """The steps under the names of the second drawing."""
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as ended:
                output: Output = ended.value
                return output
            yield dataclasses.replace(step, stage=f"hires {step.stage}")
