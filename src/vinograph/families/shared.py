"""What the families' loops have in common, as functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Drawing
from vinograph.images import resize, to_pictures
from vinograph.noise import Noise
from vinograph.request import fewest_steps
from vinograph.text import Tokens
from vinograph.values import as_array, reading, reason

Size = tuple[int, int]


def note_dropped(tokens: Tokens, out: Drawing) -> NDArray[np.int64]:
    """The ids of ``tokens``; what was cut off goes into the warnings, once."""
    for dropped in tokens.dropped:
        warning = f"the text encoder reads {tokens.ids.shape[1]} tokens; cut off: {dropped!r}"
        if dropped and warning not in out.warnings:
            out.warnings.append(warning)
    return tokens.ids


def note_ignored(texts: tuple[str, ...] | None, out: Drawing, why: str = "it takes a guidance scale above 1") -> None:
    """Warn that a negative prompt, if there is one, was ignored."""
    if texts is not None and any(texts):
        out.warnings.append(f"the negative prompt was ignored: {why}")


def called_back(
    callback: Callable[..., Any], index: int, now: np.floating[Any], tensors: Mapping[str, Array]
) -> dict[str, Array]:
    """``tensors`` with what ``callback`` returned of them.

    Raises:
        RequestError: it returned no mapping of arrays, or another shape.
    """
    returned = callback(index, now, dict(tensors))
    returned = {} if returned is None else returned
    if not isinstance(returned, Mapping):
        raise RequestError(f"the callback returned a {type(returned).__name__}; give a mapping of tensors, or None")
    result = {}
    for name, value in tensors.items():
        with reading("what the callback returned", returned):
            given = returned.get(name, value)
        try:
            result[name] = as_array(given).astype(np.float32)
        except Exception as error:  # whatever the caller's object raises when it is read
            raise RequestError(f"the callback returned {name} that are no array: {reason(error)}") from error
        if result[name].shape != value.shape:
            raise RequestError(f"the callback returned {name} of shape {result[name].shape}; {value.shape} are wanted")
    return result


def starting_noise(latents: Array | None, shape: tuple[int, ...], noise: Noise) -> Array:
    """The request's own ``latents``, if they have the right ``shape``, or noise."""
    check_latents(latents, shape)
    return noise.normal(shape) if latents is None else latents


def check_latents(latents: Array | None, shape: tuple[int, ...]) -> None:
    """Check that the request's own ``latents``, if there are any, have the ``shape`` that it needs.

    Raises:
        RequestError: with both shapes.
    """
    if latents is not None and latents.shape != shape:
        raise RequestError(f"latents have shape {latents.shape}; this request needs {shape}")


def steps_left(total: int, strength: float) -> int:
    """How many of ``total`` steps image to image does: the last ``strength`` of them.

    Raises:
        RequestError: none, with what would leave one.
    """
    left = int(total * strength)
    if left < 1:
        raise RequestError(f"{total} steps at strength {strength:g} leave none to do; {_more_steps(total, strength)}")
    return left


def _more_steps(total: int, strength: float) -> str:
    """What to give instead: the fewest steps that leave one, where so many can be asked for."""
    fewest = fewest_steps(strength)
    if fewest is None:
        return f"give a strength of at least {math.ceil(1000 / total) / 1000:g}"
    return f"give at least {fewest} steps, or a higher strength"


def near_size(size: Size, limits: Mapping[str, Any]) -> Size:
    """A size that the model draws, near to ``size`` in shape, and in area up to the model's native one."""
    step, low, high, native = (limits[key] for key in ("size_multiple", "minimum_size", "maximum_size", "native_size"))
    shrink = min(1.0, native / math.sqrt(size[0] * size[1]))
    width, height = (min(max(round(side * shrink / step) * step, low), high) for side in size)
    return width, height


def whole_size(size: Size, limits: Mapping[str, Any]) -> Size:
    """The largest size that the model draws within ``size``; a larger one is scaled down, a smaller one is filled."""
    step, low, high = (limits[key] for key in ("size_multiple", "minimum_size", "maximum_size"))
    shrink = min(1.0, high / max(size))
    width, height = (min(max(int(side * shrink) // step * step, low), high) for side in size)
    return width, height


def fit(picture: Image.Image, wanted: Size, out: Drawing) -> Image.Image:
    """The picture at the size ``wanted``, width and height, with a warning where that is another than its own."""
    if picture.size != wanted:
        note_resized(picture.size, wanted, out, "picture")
    return resize(picture, *wanted)


def note_resized(size: Size, wanted: Size, out: Drawing, name: str) -> None:
    """Warn, once, that something of this ``size`` was resized to the ``wanted`` one, both width and height."""
    warning = f"the {name} was resized from {size[0]}x{size[1]} to {wanted[0]}x{wanted[1]}"
    if warning not in out.warnings:
        out.warnings.append(warning)


def shrunk(latents: Array, most: int) -> Array:
    """The first of ``latents``, averaged down to at most ``most`` in each direction, for a preview."""
    _, channels, height, width = latents.shape
    factor = math.ceil(max(height, width) / most)
    trimmed = latents[:1, :, : height // factor * factor, : width // factor * factor]
    blocks = trimmed.reshape(1, channels, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean((3, 5)), np.float32)


def first_picture(images: Array) -> Image.Image:
    """The first of ``images`` [n, height, width, 3]."""
    return to_pictures(images[:1])[0]
