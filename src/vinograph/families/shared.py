"""Functions that the loops of all families share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families.contract import Array, Output
from vinograph.images import Size, resize, size_of, to_pictures
from vinograph.noise import Noise
from vinograph.request import Request, fewest_steps
from vinograph.text import Tokens
from vinograph.values import as_array, reading, reason


def note_dropped(tokens: Tokens, out: Output) -> NDArray[np.int64]:
    """The ids of ``tokens``, after a warning of each text that was cut off."""
    for dropped in tokens.dropped:
        note_cut_off(dropped, tokens.ids.shape[1], out)
    return tokens.ids


def note_cut_off(text: str, length: int, out: Output) -> None:
    """Warn, once, of a text that was cut off after ``length`` tokens, if there is any."""
    warning = f"the text encoder reads {length} tokens; cut off: {text!r}"
    if text and warning not in out.warnings:
        out.warnings.append(warning)


def note_ignored(texts: tuple[str, ...] | None, out: Output, why: str = "it takes a guidance scale above 1") -> None:
    """Warn that a negative prompt, if there is one, was ignored."""
    if texts is not None and any(texts):
        out.warnings.append(f"the negative prompt was ignored: {why}")


def run_callback(
    callback: Callable[..., Any], index: int, timestep: np.floating[Any], tensors: Mapping[str, Array]
) -> dict[str, Array]:
    """Call ``callback`` and return ``tensors``, with those replaced that it returned.

    Raises:
        RequestError: it returned no mapping of arrays, or another shape.
    """
    returned = callback(index, timestep, dict(tensors))
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
    """The request's own ``latents``, which must have the right ``shape``, or else noise.

    Raises:
        RequestError: they have another shape.
    """
    check_latents(latents, shape)
    return noise.normal(shape) if latents is None else latents


def check_latents(latents: Array | None, shape: tuple[int, ...]) -> None:
    """Check that the request's own ``latents``, if there are any, have the ``shape`` that it needs.

    Raises:
        RequestError: with both shapes.
    """
    if latents is not None and latents.shape != shape:
        raise RequestError(f"latents have shape {latents.shape}; this request needs {shape}")


def strength_steps(total: int, strength: float) -> int:
    """Number of steps that image to image does: the last ``strength`` of ``total``.

    Raises:
        RequestError: none, with what would leave one.
    """
    steps = int(total * strength)
    if steps < 1:
        raise RequestError(f"{total} steps at strength {strength:g} leave none to do; {_more_steps(total, strength)}")
    return steps


def _more_steps(total: int, strength: float) -> str:
    """Advice: the fewest steps that leave one to do, where so many can be asked for."""
    fewest = fewest_steps(strength)
    if fewest is None:
        return f"give a strength of at least {math.ceil(1000 / total) / 1000:g}"
    return f"give at least {fewest} steps, or a higher strength"


def requested_size(request: Request) -> Size | None:
    """The size that the request names, or None where it leaves that to the picture."""
    return None if request.width is None or request.height is None else Size(request.height, request.width)


def fit(picture: Image.Image, size: Size, out: Output) -> Image.Image:
    """Resize the picture to ``size``, with a warning where it had another one."""
    if size_of(picture) != size:
        note_resized(size_of(picture), size, out, "picture")
    return resize(picture, size)


def note_resized(before: Size, after: Size, out: Output, name: str) -> None:
    """Warn, once, that the request's ``name`` was resized."""
    warning = f"the {name} was resized from {before} to {after}"
    if warning not in out.warnings:
        out.warnings.append(warning)


def downsample(latents: Array, largest: int) -> Array:
    """The first of ``latents``, averaged down to at most ``largest`` in each direction."""
    _, channels, height, width = latents.shape
    factor = math.ceil(max(height, width) / largest)
    trimmed = latents[:1, :, : height // factor * factor, : width // factor * factor]
    blocks = trimmed.reshape(1, channels, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean((3, 5)), np.float32)


def first_picture(images: Array) -> Image.Image:
    """The first of ``images`` [n, height, width, 3]."""
    return to_pictures(images[:1])[0]
